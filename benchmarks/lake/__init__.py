"""Parts of the lakehouse's benchmarks: workloads, senders in processes of their own, a stack of some parts, judges."""
