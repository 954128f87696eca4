"""Services from the template: made, brought to a newer one, and held against the paved road.

The template is ``templates/service`` of the platform's repository, in the format of Copier
(https://copier.readthedocs.io/). Left out on purpose: a catalogue of services. A service is a directory with
Copier's answers in it, wherever it lies.
"""
