"""What the author of model code uses: the class, the job, its parameters and test cases."""
