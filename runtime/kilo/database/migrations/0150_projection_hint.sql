-- A hint of whom to contact kept the first letter and the whole domain of a decrypted address, and people have
-- domains of their own name. What is left of it is what today's consumer writes: the top-level domain.
UPDATE projection
SET contact_hint = CASE
    WHEN contact_hint ~ '\.[A-Za-z]{1,12}$' THEN '…@….' || substring(contact_hint FROM '[A-Za-z]+$')
    ELSE '…@…'
END
WHERE contact_hint IS NOT NULL AND contact_hint !~ '^…@…(\.[A-Za-z]{1,12})?$';
