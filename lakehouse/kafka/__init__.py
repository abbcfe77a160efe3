"""The log behind the `Log` port: Kafka through confluent-kafka."""
