"""Thin shells around the MQTT client, the Kafka producer and the Kafka consumer."""
