-- table: numbers
-- equal
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
f + d
d * d
i / z
l / z
d / z
f / z
z / d
i % z
l % z
d % z
b % 3
i div z
l div z
b div h
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
i < l
f = d
d = d
d <=> CAST('NaN' AS DOUBLE)
d > CAST('Infinity' AS DOUBLE)
d < CAST('NaN' AS DOUBLE)
d = 0.0
f = -0.0
i BETWEEN 1 AND 10
i NOT BETWEEN z AND 10
i IN (1, 2, 3, NULL)
d IN (2.5, 0.1)
b & h
i | z
i ^ z
l & 255
~i
~b
~l
NOT (i > 1)
i > 1 AND 10 / z > 1
z <> 0 AND 10 / z > 1
i IS NULL
i IS NOT NULL
i <=> NULL
i <=> z
i + '1'
'2' * i
'2.5' * d
i = '3'
l > '3'
d = '2.5'
+i
1 + NULL
NULL / i
abs(i)
abs(b)
abs(l)
abs(d)
abs(f)
1 + 2
2147483647 + 1
1/0
NULL + NULL
5 / 2
1.0E2
100000000000000000000
1L
1S
1Y
1.5D
1.5F
1.5BD
-2147483648
-9223372036854775808
