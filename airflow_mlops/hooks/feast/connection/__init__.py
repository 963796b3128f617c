"""How Feast is reached: configuration from an Airflow connection, logins, the session, the registry on S3."""
