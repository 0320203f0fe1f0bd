-- The state, and whether it includes the commands at the positions (logs, partitions, offsets), from one snapshot.
select
    (select id from epoch) as epoch,
    (select coalesce(sum(next_offset), 0)::bigint from applied) as generation,
    not exists (
        select
        from unnest(%(logs)s::text[], %(partitions)s::int[], %(offsets)s::bigint[]) as named (log, partition, at)
        left join applied using (log, partition)
        where coalesce(next_offset, 0) <= at
    ) as is_applied
