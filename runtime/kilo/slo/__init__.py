"""Service level objectives: as series for the rules, as OpenSLO documents, and how they stand."""
