"""What a person on a device asks of its agent: how it fares, what a bundle would do, what is wrong."""
