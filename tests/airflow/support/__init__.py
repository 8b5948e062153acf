"""What the tests share: the service, the engine, Airflow, a proxy that loses answers."""
