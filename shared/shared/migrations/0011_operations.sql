-- When a connection last had something promoted, and how much of late: asked for all connections at once.
create index batches_promoted on control.batches (connection_id, promoted_at);
