"""Field encryption where people already are: psycopg rows, SQLAlchemy columns, pydantic models.

Each is a module of its own, so that importing one needs only its library.
"""
