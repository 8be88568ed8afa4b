"""The service with each of the instrumentations; a module is imported only where its tool is measured."""
