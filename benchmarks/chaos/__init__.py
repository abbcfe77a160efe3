"""What `edge_chaos` is made of: readings to replay, kills to survive, and the picture of both."""
