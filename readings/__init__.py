"""What a reading is: its schema, its checks, and its encodings. Knows neither brokers nor databases."""
