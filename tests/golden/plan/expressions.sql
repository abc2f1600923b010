-- Spark SQL expression, then its type and value. One row: n = 7, z = 0, s = 'Spark', e = '', d = 2.5, nan, dec = 12.34 DECIMAL(10,2),
-- b = true, ts = 2026-03-01T12:34:56.789Z, day = 2026-03-01, a = array(3, 1, NULL), m = map('k', 1), st = struct(x 1, y 'v'), nil = NULL INT.
1 + 1
INT 2

2147483647 + 1
ERROR

2147483648
BIGINT 2147483648

-2147483648
INT -2147483648

cast(127 AS TINYINT) + cast(1 AS TINYINT)
ERROR

1.5
DECIMAL(2,1) 1.5

1.5 + 1
DECIMAL(3,1) 2.5

0.001
DECIMAL(3,3) 0.001

1e3
DOUBLE 1000.0

10L
BIGINT 10

n / 2
DOUBLE 3.5

n / z
ERROR

nil / z
DOUBLE NULL

d / z
ERROR

n % z
ERROR

n % -4
INT 3

-7 % 4
INT -3

n div 2
BIGINT 3

-7 div 2
BIGINT -3

n div z
ERROR

dec / 3
DECIMAL(14,6) 4.113333

dec * 2
DECIMAL(12,2) 24.68

dec + 1.125
DECIMAL(12,3) 13.465

dec / 0
ERROR

-dec
DECIMAL(10,2) -12.34

dec % 5
DECIMAL(3,2) 2.34

'5' + 1
BIGINT 6

'5.5' + 1
ERROR

'5.5' + d
DOUBLE 8.0

d + 1
DOUBLE 3.5

5 & 3
INT 1

5 | 3
INT 7

5 ^ 3
INT 6

~5
INT -6

nan = nan
BOOLEAN True

nan > 1e300
BOOLEAN True

nil = 1
BOOLEAN NULL

nil <=> NULL
BOOLEAN True

n <=> NULL
BOOLEAN False

n IN (1, 7)
BOOLEAN True

n IN (1, NULL)
BOOLEAN NULL

n NOT IN (1, 2)
BOOLEAN True

n BETWEEN 1 AND 7.0
BOOLEAN True

'7' = n
BOOLEAN True

day = '2026-03-01'
BOOLEAN True

ts > '2026-03-01 12:00:00'
BOOLEAN True

day < ts
BOOLEAN True

b AND nil IS NULL
BOOLEAN True

NOT b OR n > 6
BOOLEAN True

b IS TRUE
BOOLEAN True

CASE WHEN n > 5 THEN 'big' ELSE 'small' END
STRING big

CASE n WHEN 7 THEN 1 WHEN 8 THEN 2.5 END
DECIMAL(11,1) 1.0

CASE WHEN z = 0 THEN 0 ELSE n / z END
DOUBLE 0.0

if(b, 1, 2L)
BIGINT 1

coalesce(nil, NULL, 3)
INT 3

nvl(nil, 5)
INT 5

nvl2(nil, 1, 2)
INT 2

nullif(n, 7)
INT NULL

ifnull(nil, 1)
INT 1

greatest(1, nil, 3)
INT 3

greatest(d, nan)
DOUBLE nan

least(2, nil, 1)
INT 1

isnull(nil)
BOOLEAN True

isnotnull(nil)
BOOLEAN False

isnan(nan)
BOOLEAN True

nanvl(nan, 1.0)
DOUBLE 1.0

cast('12' AS INT)
INT 12

cast(' 12 ' AS INT)
INT 12

cast('12.5' AS INT)
ERROR

cast('abc' AS INT)
ERROR

try_cast('abc' AS INT)
INT NULL

try_cast('12' AS INT)
INT 12

cast(2.7D AS INT)
INT 2

cast(-2.7 AS INT)
INT -2

cast(1e10 AS INT)
ERROR

cast(300 AS TINYINT)
ERROR

cast(nan AS INT)
ERROR

cast('1e2' AS DOUBLE)
DOUBLE 100.0

cast('NaN' AS DOUBLE)
DOUBLE nan

cast('1_000' AS INT)
ERROR

cast('yes' AS BOOLEAN)
BOOLEAN True

cast('maybe' AS BOOLEAN)
ERROR

cast(0 AS BOOLEAN)
BOOLEAN False

cast(b AS INT)
INT 1

cast(12.345 AS DECIMAL(4,1))
DECIMAL(4,1) 12.3

cast(12.35 AS DECIMAL(4,1))
DECIMAL(4,1) 12.4

cast(1234.5 AS DECIMAL(4,1))
ERROR

cast(1.005D AS DECIMAL(3,2))
DECIMAL(3,2) 1.01

cast(n AS STRING)
STRING 7

cast(dec AS STRING)
STRING 12.34

cast(b AS STRING)
STRING true

cast(day AS STRING)
STRING 2026-03-01

cast(ts AS STRING)
STRING 2026-03-01 12:34:56.789

cast('2026-01-02' AS DATE)
DATE 2026-01-02

cast('2026-1-2' AS DATE)
DATE 2026-01-02

cast('2026-01-02 10:11:12' AS DATE)
DATE 2026-01-02

cast('02.01.2026' AS DATE)
ERROR

cast('2026-01-02T03:04:05Z' AS TIMESTAMP)
TIMESTAMP 2026-01-02 03:04:05+00:00

cast('2026-01-02 03:04:05.5+02:00' AS TIMESTAMP)
TIMESTAMP 2026-01-02 01:04:05.500000+00:00

cast(ts AS DATE)
DATE 2026-03-01

cast(ts AS BIGINT)
BIGINT 1772368496

cast(0 AS TIMESTAMP)
TIMESTAMP 1970-01-01 00:00:00+00:00

n::STRING
STRING 7

date(ts)
DATE 2026-03-01

int('5')
INT 5

upper(s)
STRING SPARK

lower(s)
STRING spark

length('añb')
INT 3

octet_length('añb')
INT 4

trim('  a b  ')
STRING a b

ltrim('  a ')
STRING a 

rtrim(' a  ')
STRING  a

trim(BOTH 'x' FROM 'xxaxx')
STRING a

trim(LEADING 'x' FROM 'xxaxx')
STRING axx

btrim('xxaxx', 'x')
STRING a

concat('a', 'b', n)
STRING ab7

concat('a', nil)
STRING NULL

'a' || 'b'
STRING ab

concat_ws('-', 'a', NULL, 'b')
STRING a-b

substring(s, 2, 3)
STRING par

substring(s, 0, 2)
STRING Sp

substring(s, -3, 2)
STRING ar

substring(s, -10, 7)
STRING Sp

substr(s, 3)
STRING ark

left(s, 2)
STRING Sp

right(s, 2)
STRING rk

left(s, -1)
STRING 

instr(s, 'a')
INT 3

locate('zz', s)
INT 0

position('p', s)
INT 2

replace(s, 'a', 'oo')
STRING Spoork

replace(s, 'ar')
STRING Spk

translate('AaBbCc', 'abc', '12')
STRING A1B2C

repeat('ab', 2)
STRING abab

reverse(s)
STRING krapS

lpad('hi', 5, '?')
STRING ???hi

lpad('hi', 1, '?')
STRING h

rpad('hi', 5)
STRING hi   

initcap('sPark sql')
STRING Spark Sql

startswith(s, 'Sp')
BOOLEAN True

endswith(s, 'rk')
BOOLEAN True

contains(s, 'par')
BOOLEAN True

s LIKE 'Sp%'
BOOLEAN True

s LIKE 'sp%'
BOOLEAN False

s ILIKE 'sp%'
BOOLEAN True

'a_c' LIKE 'a\\_c'
BOOLEAN True

'abc' LIKE 'a\\_c'
BOOLEAN False

'10%' LIKE '10/%' ESCAPE '/'
BOOLEAN True

s RLIKE '^S.*k$'
BOOLEAN True

regexp_extract('100-200', '(\\d+)-(\\d+)', 2)
STRING 200

regexp_extract('100-200', '(\\d+)-(\\d+)')
STRING 100

regexp_extract('foo', '(\\d+)')
STRING 

regexp_extract_all('100-200, 300-400', '(\\d+)-(\\d+)', 1)
ARRAY<STRING> ['100', '300']

regexp_replace('100-200', '(\\d+)', 'num')
STRING num-num

regexp_replace('abc', '(a)(b)', '$2$1')
STRING bac

regexp_count('a1b22', '\\d+')
INT 2

split('a,b,,', ',')
ARRAY<STRING> ['a', 'b', '', '']

split('one1two2', '[0-9]')
ARRAY<STRING> ['one', 'two', '']

split('a.b', '\\.')
ARRAY<STRING> ['a', 'b']

split_part('11.12.13', '.', 3)
STRING 13

split_part('11.12.13', '.', -1)
STRING 13

ascii('a')
INT 97

hex(17)
STRING 11

hex('Spark SQL')
STRING 537061726B2053514C

md5('Spark')
STRING 8cde774d6f7333752ed72cacddb05126

sha2('Spark', 256)
STRING 529bc3b07127ecb7e53a4dcf1991d9152c24537d919178022b2c42657f79a26b

base64('Spark SQL')
STRING U3BhcmsgU1FM

get_json_object('{"a":{"b":5}}', '$.a.b')
STRING 5

get_json_object('{"a":[1,2]}', '$.a[1]')
STRING 2

get_json_object('nope', '$.a')
STRING NULL

abs(-5)
INT 5

ceil(-0.1)
DECIMAL(1,0) 0

ceil(d)
BIGINT 3

floor(-2.5D)
BIGINT -3

floor(dec)
DECIMAL(9,0) 12

round(2.5)
DECIMAL(2,0) 3

round(2.5D)
DOUBLE 3.0

round(-2.5D)
DOUBLE -3.0

round(1.005D, 2)
DOUBLE 1.01

round(dec, 1)
DECIMAL(10,1) 12.3

round(n)
INT 7

sqrt(16)
DOUBLE 4.0

sqrt(-1)
DOUBLE nan

ln(0)
DOUBLE NULL

log10(100)
DOUBLE 2.0

log(2, 8)
DOUBLE 3.0

exp(0)
DOUBLE 1.0

pow(2, 3)
DOUBLE 8.0

sign(-3)
DOUBLE -1.0

mod(n, 4)
INT 3

pmod(-7, 4)
INT 1

bit_count(7)
INT 3

try_add(2147483647, 1)
INT NULL

try_divide(1, 0)
DOUBLE NULL

year(ts)
INT 2026

quarter(day)
INT 1

month(day)
INT 3

day(day)
INT 1

dayofweek(day)
INT 1

weekday(day)
INT 6

dayofyear(day)
INT 60

weekofyear(day)
INT 9

hour(ts)
INT 12

minute(ts)
INT 34

second(ts)
INT 56

extract(SECOND FROM ts)
DECIMAL(8,6) 56.789000

extract(YEAR FROM day)
INT 2026

date_trunc('hour', ts)
TIMESTAMP 2026-03-01 12:00:00+00:00

date_trunc('WEEK', ts)
TIMESTAMP 2026-02-23 00:00:00+00:00

trunc(day, 'YEAR')
DATE 2026-01-01

date_add(day, 30)
DATE 2026-03-31

date_sub(day, 1)
DATE 2026-02-28

day + 1
DATE 2026-03-02

datediff(day, '2026-02-27')
INT 2

datediff(ts, '2026-02-27 23:59:59')
INT 2

add_months('2026-01-31', 1)
DATE 2026-02-28

last_day(day)
DATE 2026-03-31

ts + INTERVAL 1 HOUR
TIMESTAMP 2026-03-01 13:34:56.789000+00:00

ts - INTERVAL '1' DAY
TIMESTAMP 2026-02-28 12:34:56.789000+00:00

day + INTERVAL 1 MONTH
DATE 2026-04-01

day + INTERVAL 2 HOURS
TIMESTAMP 2026-03-01 02:00:00+00:00

timestampadd(MINUTE, 2, ts)
TIMESTAMP 2026-03-01 12:36:56.789000+00:00

timestampdiff(MINUTE, '2026-03-01 12:00:00', ts)
BIGINT 34

date_format(ts, 'yyyy-MM-dd HH:mm:ss.SSS')
STRING 2026-03-01 12:34:56.789

date_format(day, 'EEE d MMM')
STRING Sun 1 Mar

date_format(ts, "yyyy-MM-dd'T'HH")
STRING 2026-03-01T12

to_date('01/03/2026', 'dd/MM/yyyy')
DATE 2026-03-01

to_date('1/3/2026', 'dd/MM/yyyy')
ERROR

to_timestamp('2026-03-01 10', 'yyyy-MM-dd HH')
TIMESTAMP 2026-03-01 10:00:00+00:00

unix_timestamp(ts)
BIGINT 1772368496

from_unixtime(0)
STRING 1970-01-01 00:00:00

timestamp_millis(1500)
TIMESTAMP 1970-01-01 00:00:01.500000+00:00

timestamp_seconds(1.5D)
TIMESTAMP 1970-01-01 00:00:01.500000+00:00

unix_millis(ts)
BIGINT 1772368496789

unix_seconds(timestamp_millis(-1))
BIGINT -1

unix_date(day)
INT 20513

make_date(2026, 2, 3)
DATE 2026-02-03

from_utc_timestamp(ts, 'Asia/Tokyo')
TIMESTAMP 2026-03-01 21:34:56.789000+00:00

to_utc_timestamp(ts, 'Asia/Tokyo')
TIMESTAMP 2026-03-01 03:34:56.789000+00:00

dayname(day)
STRING Sun

monthname(day)
STRING Mar

current_timestamp()
TIMESTAMP 2026-01-01 00:00:00+00:00

current_date
DATE 2026-01-01

now()
TIMESTAMP 2026-01-01 00:00:00+00:00

a[0]
INT 3

a[2]
INT NULL

a[3]
ERROR

a[-1]
ERROR

get(a, 5)
INT NULL

element_at(a, 1)
INT 3

element_at(a, -1)
INT NULL

element_at(a, 4)
ERROR

element_at(a, 0)
ERROR

try_element_at(a, 9)
INT NULL

m['k']
INT 1

m['absent']
INT NULL

m.k
INT 1

element_at(m, 'k')
INT 1

st.x
INT 1

st.Y
STRING v

size(a)
INT 3

size(m)
INT 1

array(1, 2.5)
ARRAY<DECIMAL(11,1)> [Decimal('1.0'), Decimal('2.5')]

array_contains(a, 1)
BOOLEAN True

array_contains(a, 9)
BOOLEAN NULL

array_position(a, 1)
BIGINT 2

array_position(a, 9)
BIGINT 0

array_join(array('a', NULL, 'b'), ',')
STRING a,b

array_join(array('a', NULL, 'b'), ',', '-')
STRING a,-,b

array_max(a)
INT 3

sort_array(a)
ARRAY<INT> [None, 1, 3]

sort_array(a, false)
ARRAY<INT> [3, 1, None]

array_sort(a)
ARRAY<INT> [1, 3, None]

slice(a, 1, 2)
ARRAY<INT> [3, 1]

reverse(array(1, 2))
ARRAY<INT> [2, 1]

flatten(array(array(1), array(2, 3)))
ARRAY<INT> [1, 2, 3]

concat(array(1), array(2))
ARRAY<INT> [1, 2]

map_keys(m)
ARRAY<STRING> ['k']

map_values(m)
ARRAY<INT> [1]

map_contains_key(m, 'k')
BOOLEAN True

map('a', 1)['a']
INT 1

named_struct('p', 1, 'q', 'w').q
STRING w

struct(n AS p, s).p
INT 7

transform(a, x -> x + 1)
ARRAY<INT> [4, 2, None]

transform(a, x -> x + n)
ARRAY<INT> [10, 8, None]

filter(a, x -> x > 1)
ARRAY<INT> [3]

exists(a, x -> x = 3)
BOOLEAN True

exists(a, x -> x > 5)
BOOLEAN NULL

forall(a, x -> x > 0)
BOOLEAN NULL

forall(a, x -> x > 2)
BOOLEAN False

transform(array(array(1), array(2)), x -> transform(x, y -> y * 2))
ARRAY<ARRAY<INT>> [[2], [4]]

array_compact(a)
ARRAY<INT> [3, 1]

'Größe' RLIKE '^\\p{L}+$'
BOOLEAN True

regexp_extract('a(b)c', '\\((\\p{L})', 1)
STRING b

split('aXXb', 'X+')
ARRAY<STRING> ['a', 'b']

'it''s'
STRING it's

"double \"quoted\""
STRING double "quoted"

'tab\there'
STRING tab	here

-9223372036854775808
BIGINT -9223372036854775808

n > 5 AND (z = 0 OR n / z > 1)
BOOLEAN True

ts + INTERVAL '1 hour 30 minutes'
TIMESTAMP 2026-03-01 14:04:56.789000+00:00

try_cast('x' AS DOUBLE) IS NULL
BOOLEAN True

try_cast(s AS DATE)
DATE NULL

try_cast(s AS BOOLEAN)
BOOLEAN NULL

cast(s AS INT)
ERROR

1 = 1.0
BOOLEAN True

st = named_struct('x', 1, 'y', 'v')
BOOLEAN True

array(1, 2) = array(1, 2)
BOOLEAN True

z <> 0 AND n / z > 1
BOOLEAN False

z = 0 OR cast(s AS INT) > 1
BOOLEAN True

nil > 1 AND n % z = 1
ERROR

r'a\d'
STRING a\d

'a' 'b'
STRING ab

-dec / 3
DECIMAL(14,6) -4.113333

dec / 123.45
DECIMAL(18,8) 0.09995950

12345678.91 / 0.07
DECIMAL(16,6) 176366841.571429

cast(12345678.25 AS DECIMAL(10,2)) / cast(2 AS DECIMAL(10,0))
DECIMAL(21,13) 6172839.1250000000000

cast(5e-7 AS DECIMAL(2,2))
DECIMAL(2,2) 0.00

cast('15e-4' AS DECIMAL(4,3))
DECIMAL(4,3) 0.002

cast(1.5e-3 AS DECIMAL(4,3))
DECIMAL(4,3) 0.002

cast(123456.7D AS DECIMAL(10,2))
DECIMAL(10,2) 123456.70

round(-1234567.875D, 2)
DOUBLE -1234567.88

round(2.675D, 2)
DOUBLE 2.68

round(0.1D + 0.2D, 2)
DOUBLE 0.3

round(nan, 2)
DOUBLE nan

round(-0.005D, 2)
DOUBLE -0.01

round(1e20, 2)
DOUBLE 1e+20
