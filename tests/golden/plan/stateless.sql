-- sinks.all append
SELECT * FROM plain
-- sinks.exploded append
SELECT user, tag, _shard FROM clicks LATERAL VIEW explode(tags) t AS tag WHERE tag LIKE 'x%'
-- sinks.nested append
WITH big AS (SELECT id, id * 2 AS twice FROM plain) SELECT twice FROM (SELECT * FROM big WHERE id > 1) b WHERE b.twice < 100 LIMIT 5
-- sinks.both append
SELECT id FROM plain UNION ALL SELECT -id FROM plain
