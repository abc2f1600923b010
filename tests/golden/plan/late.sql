-- views.renamed
SELECT user AS who, ts AS at, n FROM clicks WHERE n > 0
-- sinks.out append late
SELECT window(at, '1 hour').end AS hour, who, max(n) AS most, first(n) AS n0 FROM renamed GROUP BY window(at, '1 hour'), who
-- sinks.times append late
SELECT ts, count(*) AS c FROM clicks GROUP BY ts
