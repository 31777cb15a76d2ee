"""The mask verifier: a calibrated logistic model of whether a person would accept a mask, and the gate on its use."""
