"""What a worker tells over HTTP: metrics, health, readiness."""
