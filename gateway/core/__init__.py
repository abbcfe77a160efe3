"""Pure decisions of the gateway: values in, values out; time, sockets and threads belong to the caller."""
