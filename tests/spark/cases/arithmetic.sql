-- equal
-- table: numbers
b + h
i + 1
i + l
l + 1
-i
-l
-b
i - z
i * z
l * z
b * b
h + CAST(1 AS SMALLINT)
d + 1
f + 1
f + d
f * i
f * f
f / f
f + b
d * d
i / z
l / z
d / z
f / z
z / d
i % z
l % z
d % z
f % 2
b % 3
b % b
l % -1
i div z
l div z
b div h
d div 2
-7 div 2
7 % -4
-7 % 4
i / 2 * 2
1.5 + i
2.5 * l
i + 1.25
d + 1.5
f + 1.5
i = d
l = d
l = f
i = f
i < l
f = d
d = d
d <=> CAST('NaN' AS DOUBLE)
d > CAST('Infinity' AS DOUBLE)
d < CAST('NaN' AS DOUBLE)
d = 0.0
f = -0.0
f = 1.1
d = 0.1
d >= 0.1
i BETWEEN 1 AND 10
i NOT BETWEEN z AND 10
i IN (1, 2, 3, NULL)
i NOT IN (1, NULL)
d IN (2.5, 0.1)
i IN (1, 2.5)
i IN ('1', '3')
b & h
i | z
i ^ z
l & 255
~i
~b
~l
i << 2
l >> 3
1 << z
l << z
NOT (i > 1)
NOT i
!(i > 1)
i > 1 AND 10 / z > 1
z <> 0 AND 10 / z > 1
z = 0 OR 10 / z > 1
i > 0 OR NULL
i > 0 AND NULL
i IS NULL
i IS NOT NULL
(i > 1) IS TRUE
(i > 1) IS NOT TRUE
(i > 1) IS UNKNOWN
i IS DISTINCT FROM z
i <=> NULL
i <=> z
i == 3
i != 3
i + '1'
'2' * i
'2.5' * d
'2.5' * i
'x' + i
i / '2'
i % '2'
i = '3'
i > '2.5'
i = 'x'
l > '3'
d = '2.5'
d = 'NaN'
+i
- - i
+'3'
-'3'
1 + NULL
NULL / i
NULL % i
i + true
true = 1
(i > 1) = true
true > false
abs(i)
abs(b)
abs(l)
abs(d)
abs(f)
abs('-3')
abs(NULL)
negative(i)
positive(d)
1 + 2
2147483647 + 1
1/0
i + 1/0
1 % 0
NULL + NULL
5 / 2
1e400
1.0E2
1e2
100000000000000000000
1L
1S
1Y
300Y
1.5D
1.5F
1.5BD
X'1F'
-2147483648
-9223372036854775808
9223372036854775808
1.
.5
5.0
00012
1_000
'1' + '2'
1 = 1.0
1 / 3
CAST(1 AS TINYINT) + 1
CAST(127 AS TINYINT) + CAST(1 AS TINYINT)
CAST(1 AS TINYINT) * CAST(1 AS SMALLINT)
CAST(1 AS FLOAT) + CAST(1 AS BIGINT)
1.0 / 3
i || d
NULL
true AND NULL
-- refused
i >>> 1
