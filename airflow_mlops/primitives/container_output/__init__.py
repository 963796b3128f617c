"""The output of containers, which is not trusted: judged with limits of time and memory."""
