"""What several tests share: small runs, stand-ins, servers and drawn videos."""
