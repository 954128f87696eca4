"""Whether a promotion would run the same bits everywhere, and know as much about them.

An image is at parity when its tag has one digest in every registry of every stage that is compared,
with the same signatures, SBOMs and provenance. What is compared is what evidence says: subject,
predicate type and the key that signed it; SBOMs by their components, since a generator that orders
its output differently changes bytes and nothing else.
"""
