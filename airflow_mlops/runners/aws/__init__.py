"""Jobs of AWS Batch and SageMaker: requests, claims on names, channels, and lines of CloudWatch."""
