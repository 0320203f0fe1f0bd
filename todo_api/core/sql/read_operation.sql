-- What became of the command at one position. No row: nobody applied anything of this partition yet.
select applied.next_offset > %(offset)s as is_done, rejected.reason
from applied
left join rejected on rejected.source = applied.id and rejected.source_offset = %(offset)s
where applied.log = %(log)s and applied.partition = %(partition)s
