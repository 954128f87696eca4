-- A plain value that has the form of an encrypted one can't be told from an altered one: two people say which it
-- is, by a keyed digest of its place and text.

ALTER TABLE fle_rotation_approvals DROP CONSTRAINT fle_rotation_approvals_action_check;
ALTER TABLE fle_rotation_approvals ADD CONSTRAINT fle_rotation_approvals_action_check CHECK (
    action IN ('approve', 'approve-rollback', 'rollback') OR action ~ '^take-as-plain:[0-9a-f]{32}$');
