-- equal
-- table: decimals
p + p
p + q
p - n
p * p
p * q
p * n
p / q
p / n
p / i
q / q
n / p
p % q
p % i
n % p
q % n
p div q
n div i
i div q
s / 3
w + 1
w + w
w * 2
w * w
w % 7
t + 1
t * t
t / t
t / 3
p + 1
p + 1.125
p * 1.1
p / 3
i / p
i * p
i + p
1 / p
p + CAST(1 AS DOUBLE)
p * CAST(2 AS FLOAT)
p + '1'
p = 12.34
p = q
p < n
p = i
p = '12.34'
p = 2.5D
s > w
p IN (2.5, 12.34)
p BETWEEN 0 AND 10.5
-p
abs(p)
round(p)
round(p, 1)
round(p, 2)
round(p, 5)
round(p, -1)
round(p, -3)
round(q, -1)
round(s, 3)
round(w, 0)
round(n, 2)
round(t, 2)
bround(p)
bround(p, 1)
bround(n, 2)
bround(t, 2)
bround(p, -1)
ceil(p)
ceil(s)
ceil(w)
ceil(n, 2)
ceil(p, -1)
ceil(p, 1)
floor(p)
floor(q)
floor(t)
floor(n, 2)
floor(p, -1)
sign(p)
signum(q)
sqrt(p)
greatest(p, q)
least(p, q, n)
greatest(p, i)
coalesce(p, q)
coalesce(p, i)
coalesce(w, s)
if(i > 0, p, q)
if(i > 0, p, 1)
CASE WHEN i > 0 THEN p ELSE 0 END
CASE WHEN i > 0 THEN q ELSE 0.5 END
nullif(p, 0)
nullif(p, q)
nvl(p, 0)
CAST(p AS INT)
CAST(p AS BIGINT)
CAST(p AS TINYINT)
CAST(w AS BIGINT)
CAST(s AS INT)
CAST(p AS DOUBLE)
CAST(w AS DOUBLE)
CAST(s AS DOUBLE)
CAST(n AS FLOAT)
CAST(p AS STRING)
CAST(s AS STRING)
CAST(t AS STRING)
CAST(w AS STRING)
CAST(p AS DECIMAL(5,1))
CAST(p AS DECIMAL(12,4))
CAST(p AS DECIMAL(38,30))
CAST(n AS DECIMAL(10,2))
CAST(s AS DECIMAL(38,2))
CAST(w AS DECIMAL(10,0))
CAST(q AS DECIMAL(3,0))
CAST(p AS BOOLEAN)
CAST(s AS BOOLEAN)
CAST(p AS TIMESTAMP)
CAST(p AS DATE)
CAST(i AS DECIMAL(5,0))
CAST(i AS DECIMAL(12,2))
CAST(i AS DECIMAL(3,2))
try_cast(p AS INT)
try_cast(p AS TINYINT)
try_cast(p AS DECIMAL(4,2))
try_cast(w AS DECIMAL(10,0))
try_cast(w AS BIGINT)
try_add(p, q)
try_add(w, w)
try_multiply(p, p)
try_multiply(w, 2)
try_divide(p, q)
try_divide(p, 0)
try_mod(p, q)
mod(p, q)
pmod(p, q)
pmod(p, 3)
p % 0
p / 0
p div 0
1.10 + 2.205
0.1 + 0.2 = 0.3
1.0 / 3.0
10.0 / 4
99999999999999999999999999999999999999 + 1
CAST('1.005' AS DECIMAL(10,2))
CAST(1.005D AS DECIMAL(10,2))
CAST(1e10 AS DECIMAL(5,2))
decimal(p)
CAST(p AS DECIMAL)
CAST(p AS DECIMAL(10))
CAST(p AS DECIMAL(39,2))
typeof(p * q)
width_bucket(p, 0, 10, 5)
format_number(p, 1)
-- approx
exp(t)
ln(p)
pow(p, 2)
-- refused
s + 1
s + s
s * 2
s * s
s / s
s * p
s - w
w / 2
w / w
w / p
-w
abs(w)
try_subtract(w, s)
CAST(1 AS DECIMAL(38,0)) / 3
