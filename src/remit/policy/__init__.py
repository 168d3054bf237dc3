"""Policy: what a contract grants and its `policy.cedar` forbids, decided by Cedar over typed facts."""
