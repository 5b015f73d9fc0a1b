"""The task-dispatch gateway: accepts HTTP calls for later, makes them within each client's limits."""

__version__ = "0.1.0"
