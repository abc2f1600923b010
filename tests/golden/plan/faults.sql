SELECT pag FROM clicks
=> sinks.out.query:0: there is no column 'pag' in clicks; did you mean 'page'?

SELECT user,
  nothing_like_it
FROM clicks
=> sinks.out.query:1: there is no column 'nothing_like_it' in clicks; the columns are user, page, amount, n, d, tags, ts

SELECT * FROM click
=> sinks.out.query:0: there is no source or view 'click'; did you mean 'clicks'?

SELECT uper(user) FROM clicks
=> sinks.out.query:0: function uper() is not supported; did you mean 'upper'?

SELECT
  user,
  read_csv('/etc/passwd') AS x
FROM clicks
=> sinks.out.query:2: function read_csv() is not supported

SELECT getenv('HOME') FROM clicks
=> sinks.out.query:0: function getenv() is not supported

SELECT * FROM read_parquet('x')
=> sinks.out.query:0: table function read_parquet() is not supported; read a source or a view

SELECT * FROM `/etc/passwd`
=> sinks.out.query:0: there is no source or view '/etc/passwd'; there are clicks, plain

SELECT rand() FROM clicks
=> sinks.out.query:0: rand() is refused: its value would differ when an epoch runs again; hash a column instead: md5(key)

SELECT uuid() FROM clicks
=> sinks.out.query:0: uuid() is refused: its value would differ when an epoch runs again; build an id from columns: concat(_shard, '-', _offset)

SELECT page, count(*) FROM clicks GROUP BY page
=> sinks.out.query:0: mode append writes a group when no more rows can come, which needs GROUP BY window(ts, '1 minute') (or the event-time column itself) of source 'clicks', or write mode: update

SELECT id, count(*) FROM plain GROUP BY window(ts, '1 minute'), id
=> sinks.out.query:0: mode append writes a group when no more rows can come, which needs a watermark: add `watermark: {column: …, delay: …}` to source 'plain' and group by window(that column, …), or write mode: update

SELECT count(*) FROM clicks GROUP BY window(ts + INTERVAL 1 HOUR, '1 minute')
=> sinks.out.query:0: mode append writes a group when no more rows can come, which needs the window over the watermark's own column of source 'clicks', not over an expression, or write mode: update

-- sinks.out complete
SELECT * FROM clicks
=> sinks.out.query:0: mode complete needs an aggregate, since all rows of the job would be kept; write mode: append

SELECT * FROM clicks ORDER BY n
=> sinks.out.query:0: ORDER BY of a stream would never end; it is possible in mode complete, else leave it out

-- sinks.out update
SELECT page, count(*) FROM clicks GROUP BY page LIMIT 3
=> sinks.out.query:0: LIMIT in mode update needs ORDER BY in mode complete; in append it gives the first rows of the job's life

SELECT count(*) FROM clicks GROUP BY window(ts, '1 month')
=> sinks.out.query:0: '1 month': months and years have no fixed length; use days

SELECT count(*) FROM clicks GROUP BY window(ts, '1 minute', '2 minutes')
=> sinks.out.query:0: the window's slide (120000000 µs) must be above 0 and not above its size (60000000 µs)

SELECT user, row_number() OVER (PARTITION BY user ORDER BY n) AS r FROM clicks
=> sinks.out.query:0: window functions in mode append need rows that become final: PARTITION BY a window of event time, or ORDER BY the event time (ascending, first); or write mode: update, which writes a row again when it changes

SELECT max(c) FROM (SELECT count(*) AS c FROM clicks GROUP BY window(ts, '1 minute'), page) GROUP BY c
=> sinks.out.query:0: mode append writes a group when no more rows can come, which needs GROUP BY window(ts, '1 minute') (or the event-time column itself) of source 'clicks', or write mode: update

SELECT count(*) FROM clicks GROUP BY ROLLUP(window(ts, '1 minute'), user)
=> sinks.out.query:0: the window must be in every set: GROUP BY window(ts, '1 minute'), ROLLUP (a, b); for the rest write a sink of its own

SELECT grouping(user) FROM clicks GROUP BY window(ts, '1 minute'), user
=> sinks.out.query:0: grouping() needs GROUPING SETS, ROLLUP or CUBE in GROUP BY

SELECT grouping_id(user) FROM clicks GROUP BY window(ts, '1 minute'), CUBE(user, page)
=> sinks.out.query:0: grouping_id() takes nothing, or all grouped expressions in their order

SELECT user FROM clicks EXCEPT SELECT page FROM clicks
=> sinks.out.query:0: EXCEPT is not supported; filter with WHERE, or compare where the tables are read

SELECT * FROM clicks
WHERE n IN (SELECT id FROM plain)
=> sinks.out.query:0: a subquery in an expression is not supported yet; write the values out: x IN ('a', 'b')

SELECT * FROM clicks WHERE EXISTS (SELECT 1 FROM plain)
=> sinks.out.query:0: a subquery in an expression is not supported yet; write the values out, or make it a sink of its own

SELECT page, user, count(*) FROM clicks GROUP BY window(ts, '1 minute'), page
=> sinks.out.query:0: column 'user' is neither grouped nor in an aggregate; add it to GROUP BY or take any_value(user)

SELECT user FROM clicks WHERE count(*) > 1
=> sinks.out.query:0: count() is an aggregate and cannot stand here; compute it in SELECT or HAVING of a query with GROUP BY

SELECT user AS x, page AS X FROM clicks
=> sinks.out.query:0: two columns are called 'X'; give one another name: … AS X_2

SELECT user +
FROM clicks
=> sinks.out.query:1: not Spark SQL: an expression is missing near 'FROM'

DELETE FROM clicks
=> sinks.out.query:0: only a query can stand here; write SELECT … FROM …

SELECT user FROM clicks; SELECT page FROM clicks
=> sinks.out.query:0: write one query, without a second statement after ';'

SELECT 1
=> sinks.out.query:0: the query reads no table; write FROM with a source or a view

SELECT tags + 1 FROM clicks
=> sinks.out.query:0: ARRAY<STRING> + INT is not possible; CAST to numbers

SELECT regexp_extract(user, '(?=a)b') FROM clicks
=> sinks.out.query:0: regexp_extract(): look-around in '(?=a)b' is not supported here; write it another way

SELECT date_format(ts, 'yyyy-ww') FROM clicks
=> sinks.out.query:0: the datetime pattern's 'ww' cannot be printed here; use y M d H h m s S a, and X or Z for an offset

SELECT array(1)[0] FROM clicks
=> sinks.out.query:0: ARRAY is not supported: ARRAY(0)

SELECT sum(count(*)) FROM clicks GROUP BY window(ts, '1 minute')
=> sinks.out.query:0: an aggregate inside an aggregate is not possible

SELECT first(DISTINCT user) FROM clicks GROUP BY window(ts, '1 minute')
=> sinks.out.query:0: first(DISTINCT …) would depend on the order of equal rows; leave DISTINCT out

SELECT max(n) WITHIN GROUP (ORDER BY n) FROM clicks GROUP BY window(ts, '1 minute')
=> sinks.out.query:0: max() takes no WITHIN GROUP; leave it out

SELECT mode() FROM clicks GROUP BY window(ts, '1 minute')
=> sinks.out.query:0: mode() takes 1 to 2 arguments, not 0

SELECT percentile(n, n) FROM clicks GROUP BY window(ts, '1 minute')
=> sinks.out.query:0: percentile(): the share must be a literal from 0 to 1, or array(…) of such

SELECT collect_list(n) RESPECT NULLS FROM clicks GROUP BY window(ts, '1 minute')
=> sinks.out.query:0: collect_list() leaves NULLs out; put a value in their place with coalesce(x, …)

-- views.a
SELECT * FROM b
-- views.b
SELECT * FROM a
-- sinks.out append
SELECT * FROM a
=> views.a:0: views read each other in a circle: a -> b -> a; one of them must read a source
=> views.b:0: views read each other in a circle: b -> a -> b; one of them must read a source

-- views.unused
SELECT wrong FROM clicks
-- views.second
SELECT user
  , n + tags AS x
FROM clicks
-- sinks.out append
SELECT * FROM unused
-- sinks.other append
SELECT nothing_here FROM plain
=> sinks.other.query:0: there is no column 'nothing_here' in plain; the columns are id, ts
=> views.second:1: INT + ARRAY<STRING> is not possible; CAST to numbers
=> views.unused:0: there is no column 'wrong' in clicks; the columns are user, page, amount, n, d, tags, ts

SELECT n AS x,
  ts > 'yesterday' AS y
FROM clicks
=> sinks.out.query:1: 'yesterday' cannot be cast to TIMESTAMP

SELECT user, FROM clicks
=> sinks.out.query:0: not Spark SQL: an expression is missing after ','

SELECT user AS 'x' FROM clicks
=> sinks.out.query:0: not Spark SQL: a name stands after AS, not a text; write AS `x`

SELECT CASE WHEN user THEN 1 END AS x FROM clicks
=> sinks.out.query:0: a condition is a BOOLEAN, not STRING; compare it, or CAST it to BOOLEAN

SELECT n % 0 AS x FROM clicks
=> sinks.out.query:0: % 0 fails for every row that has a number here; write nullif(x, 0), or leave it out

SELECT CAST(300 AS TINYINT) AS x FROM clicks
=> sinks.out.query:0: 300 is beyond TINYINT

SELECT * FROM clicks WHERE user RLIKE '('
=> sinks.out.query:0: regexp_like(): what is no regular expression, or one of Java alone, in '(' is not supported here; write it another way

SELECT regexp_extract(user, 'a(b)[(](?:c)', 2) FROM clicks
=> sinks.out.query:0: regexp_extract(): the pattern has no group 2; put brackets round it, or take group 0 for the whole match

SELECT user, lead(n) OVER (PARTITION BY user ORDER BY ts) AS r FROM clicks
=> sinks.out.query:0: a window that looks at rows after its own (LEAD, NTILE, FOLLOWING) is never final in mode append; write mode: update

SELECT * FROM drop_duplicates(clicks, user)
=> sinks.out.query:0: drop_duplicates() takes its columns as strings: 'a', 'b'

SELECT count(*) FROM clicks GROUP BY cumulate_window(ts, '7 seconds', '1 minute')
=> sinks.out.query:0: the size of cumulate_window (60000000 µs) must be a multiple of its step (7000000 µs)

SELECT count(*) FROM clicks GROUP BY session_window(ts, '0 seconds')
=> sinks.out.query:0: the gap of session_window must be above 0, not 0 µs

SELECT user FROM clicks FOR UPDATE
=> sinks.out.query:0: FOR UPDATE is not Spark SQL; leave it out

SELECT user FROM clicks CONNECT BY n = 1
=> sinks.out.query:0: CONNECT BY is not Spark SQL

SELECT user FROM clicks VERSION AS OF 3
=> sinks.out.query:0: a source has no versions: VERSION AS OF and TIMESTAMP AS OF stand at a versioned table that is joined

SELECT user FROM clicks LIMIT 1 BY user
=> sinks.out.query:0: not Spark SQL: the first n rows are LIMIT n; of every key, row_number() OVER (PARTITION BY …) <= n

SELECT user FROM other.clicks
=> sinks.out.query:0: there is no source or view 'other.clicks': their names have one part

SELECT t.a FROM clicks AS t (a, b)
=> sinks.out.query:0: 2 names are given to 7 columns of 't'; name all of them

SELECT tags.* FROM clicks
=> sinks.out.query:0: tags.* needs a table or a STRUCT; name the columns

SELECT count(*) AS c,
  sum(c) AS x
FROM clicks GROUP BY window(ts, '1 minute')
=> sinks.out.query:1: an aggregate inside an aggregate is not possible

SELECT user, n, rank() OVER (PARTITION BY window ORDER BY count(*)) AS r FROM clicks GROUP BY window(ts, '1 minute'), user
=> sinks.out.query:0: column 'n' is neither grouped nor in an aggregate; add it to GROUP BY or take any_value(n)

SELECT user, (SELECT max(id) FROM plain) AS m FROM clicks
=> sinks.out.query:0: a subquery in an expression is not supported yet; write the values out, or make it a sink of its own

SELECT * FROM VALUES (1, 'a') AS t (x, y)
=> sinks.out.query:0: VALUES cannot stand here; write the rows into a file and read it as a table of `tables:`, or write CASE

SELECT user, avg(n) OVER (PARTITION BY user ORDER BY ts) AS a FROM clicks
=> sinks.out.query:0: a running avg over all rows before is not kept in mode append; sum, count, min and max are: write sum(x) OVER … / count(x) OVER … for an average, or mode: update

SELECT user, sum(n) OVER (PARTITION BY user ORDER BY ts RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND CURRENT ROW) AS s FROM clicks
=> sinks.out.query:0: RANGE n PRECEDING is not kept in mode append; write mode: update, or join the stream with itself on the key and b.ts BETWEEN a.ts - INTERVAL 1 MINUTE AND a.ts, then GROUP BY the row
