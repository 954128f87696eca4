"""The controllers: each brings one kind's objects towards what their specifications say."""
