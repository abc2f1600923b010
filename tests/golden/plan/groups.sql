-- sinks.top complete
SELECT page, count(*) AS c, sum(n) FROM clicks GROUP BY page ORDER BY c DESC, lower(page) LIMIT 3
-- sinks.total update
SELECT count(*), max(d) AS top FROM clicks
-- sinks.ordinal update
SELECT upper(page) AS p, n % 2, collect_list(user) AS users FROM clicks GROUP BY 1, 2
-- sinks.every update
SELECT page, user AS u, count(*) AS c FROM clicks GROUP BY ALL
-- sinks.above append
SELECT m.page, m.c / 2 AS half FROM (SELECT page, window.start AS at, count(*) AS c FROM clicks GROUP BY window(ts, '1 minute'), page) m WHERE m.c > 1
