"""The fused engine: K GPT-2 models of one shape in one process; `loop` trains a stream of jobs."""
