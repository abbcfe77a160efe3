"""What starts things: set-up, launcher, command line, configurations of the parts that are not ours."""
