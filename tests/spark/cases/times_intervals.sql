-- table: times
-- equal
d + INTERVAL '1' DAY
d + INTERVAL '1' HOUR
d + INTERVAL '24' HOUR
d + INTERVAL 1 MONTH
d - INTERVAL 3 MONTH
d + INTERVAL '1-2' YEAR TO MONTH
d + make_interval(0, 1, 0, 1)
d + make_interval(0, n, 0, 1)
d + make_interval(0, 1, 0, 1, 1)
ts + make_interval(0, 1, 0, 1, 1, 1, 1.5)
ts - make_interval(0, 1, 0, 1, 1, 1, 1.5)
nt + make_interval(1, 2, 3, 4, 5, 6, 7.000001)
ts + make_dt_interval(1, 2, 3, 4.5)
ts + make_dt_interval(n)
ts + make_dt_interval(0, n, 0, 0.000001)
ts + make_ym_interval(1, 1)
nt - make_ym_interval(0, n)
make_ym_interval(1) + d
ts + INTERVAL '1 02:03:04.5' DAY TO SECOND
ts - INTERVAL '1 02:03:04.5' DAY TO SECOND
ts + INTERVAL 1 DAY 2 HOURS
ts + INTERVAL '1 day 2 hours'
ts + INTERVAL 1.5 SECONDS
ts + INTERVAL '1' WEEK
ts + INTERVAL '5' MILLISECOND
ts + INTERVAL -'1' DAY
ts - INTERVAL '-1' DAY
ts + - INTERVAL '1' MONTH
INTERVAL '90' MINUTE + nt
ts + INTERVAL '1' DAY * 2
ts + 2 * INTERVAL '1' DAY
ts + INTERVAL '1' DAY * n
ts + INTERVAL '1' DAY * 1.5
ts + INTERVAL '1' DAY / 2
ts + INTERVAL '1' DAY / 7
d + INTERVAL '1' MONTH / 2
d + INTERVAL '5' MONTH / 2
d + INTERVAL '7' MONTH / 2.0D
d + -INTERVAL '7' MONTH / 2
d + INTERVAL '1' MONTH * 1.5
ts + INTERVAL '1' DAY / 0
ts + INTERVAL '1' DAY / n
ts + (INTERVAL '1' DAY + INTERVAL '2' HOUR)
ts + (INTERVAL '1' DAY - INTERVAL '2' HOUR)
ts + INTERVAL '1' DAY + INTERVAL '1' MONTH
INTERVAL '1' DAY > INTERVAL '23' HOUR
INTERVAL '1' DAY = INTERVAL '24' HOUR
INTERVAL '1' YEAR = INTERVAL '12' MONTH
INTERVAL '1' DAY = INTERVAL '1' MONTH
INTERVAL '1' DAY + INTERVAL '1' MONTH = INTERVAL '1' DAY
ts - TIMESTAMP '2026-01-01 00:00:00' > INTERVAL '1' DAY
ts - nt = INTERVAL '0' SECOND
ts - d < INTERVAL '13' HOUR
d - DATE '2026-01-01' = INTERVAL '59' DAY
d - ts <= INTERVAL '0' SECOND
ts - '2026-01-01' > INTERVAL '59' DAY
d + (DATE '2026-01-02' - DATE '2026-01-01')
ts + (ts - nt)
TIMESTAMP '2026-01-01 00:00:00' + (ts - TIMESTAMP '2026-02-01 00:00:00') / 2
ts - INTERVAL '1' DAY BETWEEN TIMESTAMP '2026-02-01 00:00:00' AND ts
CASE WHEN o THEN INTERVAL '1' DAY ELSE INTERVAL '1' HOUR END = INTERVAL '1' DAY
coalesce(ts - nt, INTERVAL '1' SECOND) = INTERVAL '1' SECOND
greatest(INTERVAL '1' DAY, INTERVAL '25' HOUR) = INTERVAL '25' HOUR
extract(DAY FROM ts - TIMESTAMP '2026-01-01 00:00:00')
extract(HOUR FROM ts - TIMESTAMP '2026-01-01 00:01:00')
extract(MINUTES FROM ts - TIMESTAMP '2026-01-01 00:01:00')
extract(SECOND FROM ts - TIMESTAMP '2026-01-01 00:00:00.5')
extract(DAY FROM d - DATE '2026-01-01')
extract(HOUR FROM d - DATE '2026-01-01')
extract(DAY FROM INTERVAL '49' HOUR)
extract(HOUR FROM INTERVAL '49' HOUR)
extract(SECOND FROM INTERVAL '49.25' SECOND)
extract(MINUTE FROM INTERVAL '-3' HOUR)
extract(YEAR FROM INTERVAL '15' MONTH)
extract(MONTH FROM INTERVAL '15' MONTH)
extract(MONTH FROM INTERVAL '-15' MONTH)
extract(YEAR FROM make_ym_interval(0, n))
extract(MONTH FROM make_ym_interval(0, n))
extract(DAYS FROM make_interval(1,2,3,4,5,6,7))
extract(HOUR FROM make_interval(1,2,3,4,25,6,7))
extract(MINUTE FROM make_interval(0,0,0,0,0,-61,7))
extract(SECOND FROM make_interval(1,2,3,4,5,6,7.25))
extract(YEAR FROM make_interval(1,14,3,4,5,6,7))
extract(MONTH FROM make_interval(0,n))
extract(DAY FROM make_dt_interval(0, n))
extract(HOUR FROM make_dt_interval(0, n))
CAST(ts - TIMESTAMP '2026-01-01 00:00:00' AS BIGINT)
CAST(INTERVAL '90' SECOND AS INT)
CAST(INTERVAL '90.5' SECOND AS DECIMAL(10,2))
CAST(INTERVAL '90' MINUTE AS INT)
CAST(INTERVAL '15' MONTH AS INT)
CAST(d - DATE '2026-01-01' AS INT)
DATE '2026-01-01' + make_interval(178956970, 8)
DATE '2026-01-01' + make_ym_interval(178956970, 8)
make_dt_interval(NULL) IS NULL
d - n = d
INTERVAL '1' DAY + 1
ts + 1
ts * 2
sequence(d, d + INTERVAL '3' DAY, INTERVAL '1' DAY)
-- refused
CAST('1 2:3:4' AS INTERVAL DAY TO SECOND) IS NULL
ts + CAST(10 AS INTERVAL HOUR)
CAST(ts - nt AS STRING)
ts + INTERVAL '1' DAY / 1.5
ts - nt
