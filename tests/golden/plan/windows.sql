-- views.real
SELECT * FROM clicks WHERE page <> '/health'
-- sinks.views_per_minute append
SELECT date(window.start) AS day, window.start AS minute, page, count(*) AS views
FROM real GROUP BY window(ts, '1 minute'), page
-- sinks.sliding update
SELECT window, sum(amount) FILTER (WHERE n > 1) AS big, avg(amount) AS mean
FROM clicks GROUP BY window(ts, '10 minutes', '5 minutes', '1 minute') HAVING count(n) > 2
