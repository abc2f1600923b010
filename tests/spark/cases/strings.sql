-- equal
-- table: strings
upper(s)
ucase(s)
lower(s)
lcase('ÀÉÎ')
lower('İ')
upper('ß')
initcap(s)
initcap('hELLO wORLD')
length(s)
len(s)
length(x)
char_length(s)
character_length(s)
bit_length(s)
octet_length(s)
octet_length(x)
concat(s, t)
concat(s, n)
concat(s, NULL)
concat()
concat(x, x)
concat(s, x)
s || t
s || n
concat_ws(',', s, t)
concat_ws(',', s, NULL, t)
concat_ws(t, 'a', s)
concat_ws(',')
concat_ws(',', array('a', NULL, 'b'), s)
substring(s, 2)
substring(s, 2, 3)
substring(s, n)
substring(s, n, m)
substring(s, 0, 2)
substring(s, -3, 2)
substring(s FROM 2 FOR 3)
substring(s FROM 2)
substr(s, n, m)
substr(x, 1, 2)
substring(x, 2)
substring(x, -1)
left(s, 2)
left(s, n)
right(s, 2)
right(s, n)
left(x, 2)
substring_index(s, ' ', 1)
substring_index(s, ',', 2)
substring_index(s, ',', -2)
substring_index(s, t, n % 100)
substring_index(s, '', 1)
instr(s, t)
instr(s, 'a')
locate(t, s)
locate('a', s, 3)
locate('a', s, m)
locate('', s, 2)
position(t, s)
position('a' IN s)
position('a', s, 2)
charindex('a', s)
charindex('a', s, 2)
replace(s, t)
replace(s, t, 'X')
replace(s, 'a', '')
replace(s, '', 'X')
translate(s, 'abc', 'xy')
translate(s, 'aa', 'xy')
translate(s, '', 'x')
translate(s, 'ü😀', 'uE')
overlay(s, 'XX', 2)
overlay(s, 'XX', 2, 1)
overlay(s PLACING 'XX' FROM 2)
overlay(s PLACING 'XX' FROM 2 FOR 3)
trim(s)
trim(BOTH FROM s)
trim(LEADING 'a' FROM s)
trim(TRAILING 'c' FROM s)
trim(BOTH 'ac' FROM s)
trim('ab' FROM s)
btrim(s)
btrim(s, 'a ')
ltrim(s)
rtrim(s)
ltrim('a', s)
rtrim('c', s)
ltrim(' ab', s)
trim(t FROM s)
repeat(s, 2)
repeat(s, -1)
repeat(t, m % 4)
lpad(s, 10, '*')
lpad(s, 3, '*')
lpad(s, 12)
lpad(s, 14, 'ab')
lpad(s, 5, '')
lpad(s, -1, 'a')
rpad(s, 10, '*')
rpad(s, 3, '*')
rpad(s, 14, 'ab')
rpad(s, 12, '')
reverse(s)
reverse('abc')
space(3)
space(m % 4)
ascii(s)
ascii('')
ascii('😀')
char(65)
chr(65)
chr(n)
char(256 + 65)
chr(200)
chr(-1)
unicode(s)
base64(s)
base64(x)
base64(repeat(s, 20))
unbase64('U3BhcmsgU1FM')
unbase64('!!')
unbase64('YQ')
unbase64(base64(x))
hex(s)
hex(x)
unhex(hex(s))
unhex(s)
encode(s, 'UTF-8')
encode(s, 'nope')
decode(x, 'UTF-8')
decode(encode(s, 'UTF-8'), 'UTF-8')
md5(s)
md5(x)
sha1(s)
sha2(s, 256)
sha2(x, 256)
soundex(s)
soundex('Robert')
soundex('Tymczak')
levenshtein(s, t)
levenshtein('kitten', 'sitting')
startswith(s, t)
endswith(s, t)
contains(s, t)
startswith(s, 'S')
contains(s, '')
startswith(x, X'53')
s LIKE 'S%'
s LIKE '%a%'
s LIKE t
s LIKE '_park%'
s LIKE '100\\%%'
s LIKE '100/%%' ESCAPE '/'
s LIKE '%' || t || '%'
s LIKE '%\n%'
s LIKE ''
s LIKE 'a\\b'
s LIKE NULL
s NOT LIKE 'S%'
s ILIKE 's%'
s ILIKE '%SQL'
s ILIKE '%É%'
like(s, 'S%')
ilike(s, 's%')
like(s, '1/%', '/')
s LIKE ANY ('S%', '%c')
s LIKE ALL ('S%', '%L')
s NOT LIKE ALL ('S%', '%L')
s NOT LIKE ANY ('S%', '%L')
s LIKE SOME ('S%', 'a%')
s ILIKE ANY ('s%', '%C')
s RLIKE '^S'
s REGEXP 'a+'
rlike(s, '[a-z]+')
regexp(s, '\\d+')
regexp_like(s, '\\s')
s RLIKE '(?i)spark'
s RLIKE '\\bSQL\\b'
s RLIKE '\\w+'
s RLIKE '^.$'
s RLIKE '.'
s RLIKE 'tab.new'
s RLIKE 'new.line'
s RLIKE 'line$'
s RLIKE 'new$'
s RLIKE '^line'
s RLIKE '(?s)new.line'
s RLIKE '['
s RLIKE '\\p{L}'
s RLIKE '\\p{Lu}'
s RLIKE '\\p{Alpha}'
s RLIKE '\\Qa\\E'
s RLIKE 'a{2,}'
s RLIKE '😀'
s RLIKE '\\x61'
s RLIKE '\\u0061'
s RLIKE '\\h'
s RLIKE '[^a-z]'
regexp_extract(s, '(\\w+) (\\w+)', 2)
regexp_extract(s, '(\\w+)')
regexp_extract(s, 'a', 0)
regexp_extract(s, '(a)|(b)', 2)
regexp_extract(s, '(a)(x)?', 2)
regexp_extract_all(s, '(\\w)', 1)
regexp_extract_all(s, '[a-z]', 0)
regexp_extract_all(s, '(a)(b)?')
regexp_replace(s, 'a', 'X')
regexp_replace(s, '(\\w)(\\w)', '$2$1')
regexp_replace(s, '\\s+', '')
regexp_replace(s, '(a)', '\\$1')
regexp_count(s, 'a')
regexp_count(s, '\\w+')
regexp_instr(s, 'a')
regexp_instr(s, '[0-9]+')
regexp_substr(s, '[a-z]+')
regexp_substr(s, 'zzz')
split(s, ',')
split(s, ',', -1)
split(s, '\\s+')
split(s, '')
split(s, 'a')
split(s, '[,a]')
split(s, '😀')
split_part(s, ',', 1)
split_part(s, ',', 2)
split_part(s, ',', -1)
split_part(s, ',', 0)
split_part(s, ',', 10)
split_part(s, t, 1)
split_part(s, '', 1)
format_string('%s %s', s)
printf('%s', d)
format_number(n, 2)
find_in_set('b', 'a,b,c')
find_in_set(t, s)
find_in_set('a,b', 'a,b')
elt(1, s, t)
elt(2, s, t)
elt(3, s, t)
elt(n, s, t)
field('a', 'b')
mask(s)
mask(s, 'Y', 'y', 'd')
url_encode(s)
s = 'Spark SQL'
s < t
s >= 'a'
s < '😀'
s IN ('Spark SQL', '')
s BETWEEN 'A' AND 'b'
s = x
x = X'61'
x < X'6100'
CAST(x AS STRING)
CAST(s AS BINARY)
greatest(s, t)
least(s, t, 'b')
nvl(s, 'none')
coalesce(s, t, '')
nullif(s, t)
nullif(s, '')
if(s = '', NULL, s)
decode(s, '', 'empty', 'a', 'b', t)
'it''s'
'a' 'b'
"double"
'\u0041\t\n'
r'\d'
'\\d'
'\%'
'\_'
'\x'
'\101'
bit_length(x)
to_json(struct(s, n))
regexp_replace(s, 'e$', 'X')
regexp_extract(s, '(\\w+)$', 1)
regexp_extract(s, '\\w+$', 0)
s RLIKE '(?i)sql$'
s RLIKE '\\p{Upper}'
s RLIKE '[\\s,]'
s RLIKE '\\S+\\s\\S+'
s NOT RLIKE 'a'
s NOT ILIKE 's%'
s NOT LIKE '100/%%' ESCAPE '/'
s || NULL
regexp_replace(s, '[aeiou]', '<$0>')
octet_length('😀')
soundex(NULL)
string(x)
-- table: bytes
hex(x)
base64(x)
md5(x)
sha2(x, 256)
length(x)
octet_length(x)
x = y
x < y
x || y
substring(x, 2, 1)
concat(x, y)
unhex(hex(x))
CAST(hex(x) AS BINARY)
startswith(x, y)
endswith(x, y)
-- refused
-- table: strings
overlay(s, 'XX', n, m)
btrim(x)
lpad(x, 4)
rpad(x, 4, X'00')
encode(s, 'utf-16be')
encode('abc', 'US-ASCII')
encode(s, 'US-ASCII')
encode(s, 'ISO-8859-1')
decode(X'61', 'US-ASCII')
sha2(s, 512)
crc32(s)
crc32(x)
hash(s)
xxhash64(s)
levenshtein('kitten', 'sitting', 2)
contains(x, X'70')
s RLIKE '(?m)^line$'
s RLIKE '(?<=S)p'
s RLIKE 'a(?=b)'
s RLIKE '(a)\\1'
s RLIKE 'a++'
s RLIKE '\\p{IsAlphabetic}'
s RLIKE '[a-c&&[b]]'
s RLIKE '[[:alpha:]]'
s RLIKE t
regexp_extract(s, '(\\d+)', 3)
regexp_extract(s, '\\d+', n)
regexp_replace(s, '', '-')
regexp_replace(s, 'a*', '-')
regexp_replace(s, 'a', 'X', 3)
regexp_replace(s, 'a', t)
split(s, ',', 2)
split(s, t)
sentences(s)
format_string('%s-%d', s, n)
format_string('%05d', n)
format_string('%.2f', 1.5D)
format_string('%x', 255)
format_string('%10s|%-10s|', s, t)
format_string('%%')
printf('%s', s)
printf('%d', n)
format_string('%,d', 1234567)
quote(s)
mask(s, 'Y', NULL, 'd', '*')
parse_url('http://spark.apache.org/path?query=1#f', 'HOST')
parse_url('http://user:pw@spark.apache.org:80/path?query=1&b=2#f', 'QUERY', 'b')
parse_url('http://spark.apache.org/path?query=1', 'PATH')
try_parse_url(s, 'HOST')
url_decode('a%20b+c')
url_decode(url_encode(s))
try_url_decode('%zz')
luhn_check('79927398713')
luhn_check(s)
is_valid_utf8(s)
is_valid_utf8(x)
make_valid_utf8(x)
validate_utf8(s)
try_validate_utf8(x)
to_binary('abc', 'utf-8')
to_binary('61', 'hex')
to_binary('YQ==', 'base64')
try_to_binary('!', 'base64')
to_char(n, '999')
to_varchar(n, '999')
collation(s)
s COLLATE UTF8_LCASE = 'spark sql'
s RLIKE '(?i)[a-c]'
s RLIKE 'a|b$'
regexp_replace(s, '(a)', '$2')
aes_encrypt(s, '0000111122223333')
