"""The conformance kit of Feast offline stores: the cases, the judge and the runner."""
