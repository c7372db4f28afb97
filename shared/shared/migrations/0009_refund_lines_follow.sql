-- Lines of a refund live and die with it. They come apart from it (with a webhook, or read by its id), so that
-- whatever marks a refund deleted, or brings it back with its order, has no lines at hand to take along.
create function shopify.refund_lines_follow() returns trigger
language plpgsql as $$
begin
    update shopify.refund_line_items
    set deleted_at = new.deleted_at, synced_at = now()
    where connection_id = (select new.connection_id) and order_id = new.order_id and refund_id = new.id
      and deleted_at is distinct from new.deleted_at;
    return null;
end $$;

create trigger refund_lines_follow
after update of deleted_at on shopify.refunds
for each row when (old.deleted_at is distinct from new.deleted_at)
execute function shopify.refund_lines_follow();
revoke execute on function shopify.refund_lines_follow() from public;
