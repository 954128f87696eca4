"""The policy pack: rules that every stage must keep, checked by the engine in every preview."""
