"""The only door for everything that is not a query: MQTT bridge and watermarks back to the devices."""
