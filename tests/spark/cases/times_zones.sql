-- table: times
-- zone: Europe/Berlin
-- equal
TIMESTAMP '2026-10-25 02:30:00'
TIMESTAMP '2026-03-29 02:30:00'
TIMESTAMP '1800-01-05 13:04:06+01:00'
CAST(nt AS TIMESTAMP)
CAST(ts AS TIMESTAMP_NTZ)
CAST(d AS TIMESTAMP)
CAST(ts AS DATE)
CAST(ts AS STRING)
ts = nt
ts < d
hour(ts)
day(ts)
minute(ts)
extract(SECOND FROM ts)
date_trunc('YEAR', ts)
date_trunc('MONTH', ts)
date_trunc('WEEK', ts)
date_trunc('DAY', ts)
date_trunc('HOUR', ts)
date_trunc('MINUTE', ts)
date_trunc('SECOND', ts)
date_trunc('HOUR', nt)
date_trunc('DAY', TIMESTAMP '2026-11-01 12:00:00')
date_trunc('HOUR', timestamp_seconds(1792888200))
date_trunc('HOUR', timestamp_seconds(1792891800))
ts + INTERVAL 1 MONTH
TIMESTAMP '2026-09-25 02:30:00' + INTERVAL 1 MONTH
TIMESTAMP '2026-11-25 02:30:00' - INTERVAL 1 MONTH
TIMESTAMP '2026-10-24 02:30:00' + INTERVAL 1 DAY
TIMESTAMP '2026-10-26 02:30:00' - INTERVAL 1 DAY
TIMESTAMP '2026-03-28 02:30:00' + INTERVAL 24 HOUR
TIMESTAMP '2026-03-28 02:30:00' + INTERVAL 25 HOUR
TIMESTAMP '2026-02-28 02:30:00' + make_interval(0, 1, 0, 1, 1, 0, 0)
TIMESTAMP '2026-09-24 02:30:00' + make_interval(0, 1, 0, 1, 0, 0, 0)
d + INTERVAL 1 HOUR
timestampadd(DAY, n, TIMESTAMP '2026-03-28 02:30:00')
timestampadd(HOUR, n, TIMESTAMP '2026-03-28 02:30:00')
timestampadd(MONTH, 7, TIMESTAMP '2026-03-25 02:30:00')
timestampdiff(HOUR, TIMESTAMP '2026-10-25 00:00:00', TIMESTAMP '2026-10-26 00:00:00')
timestampdiff(DAY, ts, TIMESTAMP '2026-10-26 00:00:00')
timestampdiff(MONTH, ts, TIMESTAMP '2026-10-26 00:00:00')
TIMESTAMP '2026-10-26 00:00:00' - TIMESTAMP '2026-10-25 00:00:00' = INTERVAL '1' DAY
extract(HOUR FROM ts - TIMESTAMP '2026-01-01 00:00:00')
ts - nt > INTERVAL '0' SECOND
months_between(ts, TIMESTAMP '2026-01-31 00:00:00')
datediff(ts, d)
add_months(ts, 1)
last_day(ts)
next_day(ts, 'MON')
from_unixtime(u)
from_unixtime(u, 'yyyy-MM-dd HH:mm:ss XXX')
unix_timestamp(nt)
unix_timestamp('2026-10-25 02:30:00')
to_timestamp('2026-10-25 02:30', 'yyyy-MM-dd HH:mm')
to_timestamp('2026-03-29 02:30', 'yyyy-MM-dd HH:mm')
to_timestamp(s, 'yyyy-MM-dd HH:mm:ss')
to_date('2026-05-03 23:00:00 -0800', 'yyyy-MM-dd HH:mm:ss Z')
to_date(ts)
to_timestamp_ntz(ts)
make_timestamp(2026, 10, 25, 2, 30, 0)
make_timestamp(2026, 3, 29, 2, 30, 0)
make_timestamp(2026, 10, 25, 2, 30, 0, 'America/New_York')
from_utc_timestamp(ts, 'America/New_York')
to_utc_timestamp(ts, 'America/New_York')
to_utc_timestamp(nt, 'Europe/Berlin')
convert_timezone('America/Los_Angeles', nt)
convert_timezone('Europe/Berlin', 'America/Havana', nt)
current_timezone()
date_format(ts, 'yyyy-MM-dd HH:mm:ss')
date_format(nt, 'yyyy-MM-dd HH:mm:ss')
date_format(ts, 'X')
date_format(ts, 'XXXXX')
date_format(ts, 'O')
date_format(ts, 'OOOO')
date_format(ts, 'xx Z VV')
-- zone: America/St_Johns
-- equal
TIMESTAMP '2026-10-25 02:30:00'
TIMESTAMP '2026-03-29 02:30:00'
TIMESTAMP '1800-01-05 13:04:06+01:00'
CAST(nt AS TIMESTAMP)
CAST(ts AS TIMESTAMP_NTZ)
CAST(d AS TIMESTAMP)
CAST(ts AS DATE)
CAST(ts AS STRING)
ts = nt
ts < d
hour(ts)
day(ts)
minute(ts)
extract(SECOND FROM ts)
date_trunc('YEAR', ts)
date_trunc('MONTH', ts)
date_trunc('WEEK', ts)
date_trunc('DAY', ts)
date_trunc('HOUR', ts)
date_trunc('MINUTE', ts)
date_trunc('SECOND', ts)
date_trunc('HOUR', nt)
date_trunc('DAY', TIMESTAMP '2026-11-01 12:00:00')
date_trunc('HOUR', timestamp_seconds(1792888200))
date_trunc('HOUR', timestamp_seconds(1792891800))
ts + INTERVAL 1 MONTH
TIMESTAMP '2026-09-25 02:30:00' + INTERVAL 1 MONTH
TIMESTAMP '2026-11-25 02:30:00' - INTERVAL 1 MONTH
TIMESTAMP '2026-10-24 02:30:00' + INTERVAL 1 DAY
TIMESTAMP '2026-10-26 02:30:00' - INTERVAL 1 DAY
TIMESTAMP '2026-03-28 02:30:00' + INTERVAL 24 HOUR
TIMESTAMP '2026-03-28 02:30:00' + INTERVAL 25 HOUR
TIMESTAMP '2026-02-28 02:30:00' + make_interval(0, 1, 0, 1, 1, 0, 0)
TIMESTAMP '2026-09-24 02:30:00' + make_interval(0, 1, 0, 1, 0, 0, 0)
d + INTERVAL 1 HOUR
timestampadd(DAY, n, TIMESTAMP '2026-03-28 02:30:00')
timestampadd(HOUR, n, TIMESTAMP '2026-03-28 02:30:00')
timestampadd(MONTH, 7, TIMESTAMP '2026-03-25 02:30:00')
timestampdiff(HOUR, TIMESTAMP '2026-10-25 00:00:00', TIMESTAMP '2026-10-26 00:00:00')
timestampdiff(DAY, ts, TIMESTAMP '2026-10-26 00:00:00')
timestampdiff(MONTH, ts, TIMESTAMP '2026-10-26 00:00:00')
TIMESTAMP '2026-10-26 00:00:00' - TIMESTAMP '2026-10-25 00:00:00' = INTERVAL '1' DAY
extract(HOUR FROM ts - TIMESTAMP '2026-01-01 00:00:00')
ts - nt > INTERVAL '0' SECOND
months_between(ts, TIMESTAMP '2026-01-31 00:00:00')
datediff(ts, d)
add_months(ts, 1)
last_day(ts)
next_day(ts, 'MON')
from_unixtime(u)
from_unixtime(u, 'yyyy-MM-dd HH:mm:ss XXX')
unix_timestamp(nt)
unix_timestamp('2026-10-25 02:30:00')
to_timestamp('2026-10-25 02:30', 'yyyy-MM-dd HH:mm')
to_timestamp('2026-03-29 02:30', 'yyyy-MM-dd HH:mm')
to_timestamp(s, 'yyyy-MM-dd HH:mm:ss')
to_date('2026-05-03 23:00:00 -0800', 'yyyy-MM-dd HH:mm:ss Z')
to_date(ts)
to_timestamp_ntz(ts)
make_timestamp(2026, 10, 25, 2, 30, 0)
make_timestamp(2026, 3, 29, 2, 30, 0)
make_timestamp(2026, 10, 25, 2, 30, 0, 'America/New_York')
from_utc_timestamp(ts, 'America/New_York')
to_utc_timestamp(ts, 'America/New_York')
to_utc_timestamp(nt, 'Europe/Berlin')
convert_timezone('America/Los_Angeles', nt)
convert_timezone('Europe/Berlin', 'America/Havana', nt)
current_timezone()
date_format(ts, 'yyyy-MM-dd HH:mm:ss')
date_format(nt, 'yyyy-MM-dd HH:mm:ss')
date_format(ts, 'X')
date_format(ts, 'XXXXX')
date_format(ts, 'O')
date_format(ts, 'OOOO')
date_format(ts, 'xx Z VV')
-- zone: America/Havana
-- equal
CAST(DATE '2025-11-02' AS TIMESTAMP)
date_trunc('DAY', TIMESTAMP '2025-11-02 12:00:00')
date_trunc('WEEK', TIMESTAMP '2025-11-04 12:00:00')
CAST(DATE '2025-03-09' AS TIMESTAMP)
date_trunc('DAY', TIMESTAMP '2025-03-09 12:00:00')
TIMESTAMP '2025-11-02 00:30:00'
TIMESTAMP '2025-10-02 00:30:00' + INTERVAL 1 MONTH
TIMESTAMP '2025-12-02 00:30:00' - INTERVAL 1 MONTH
months_between(TIMESTAMP '2025-11-02 12:00:00', TIMESTAMP '2025-10-05 00:00:00')
-- refused
date_format(ts, 'z')
date_format(ts, 'zzzz')
