"""The whole engine with simulated annotators: rounds, retraining and the gate, beside a control."""
