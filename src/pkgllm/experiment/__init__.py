"""The one place that turns a configuration into objects and runs them."""
