"""`dicomwatchctl setup`, the first start: questions, a plan of steps, and a test study. See docs/operations.md."""
