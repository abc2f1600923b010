-- Batch queries of Nexmark in DuckDB's SQL, from the benchmark's definition, over all events at once: tables bid, auction, person.
-- Two views come first, then a query a heading.

-- views
CREATE VIEW valid AS  -- auctions with the bids made while they were open
  SELECT a.*, bidder, price, channel, url, b.dateTime AS bid_dateTime, b.extra AS bid_extra
  FROM auction a JOIN bid b ON a.id = b.auction AND b.dateTime BETWEEN a.dateTime AND a.expires;
CREATE VIEW ranked AS SELECT *, price < 10000 AS rank1, price BETWEEN 10000 AND 999999 AS rank2, price > 999999 AS rank3,
  strftime(dateTime, '%Y-%m-%d') AS day FROM bid;

-- q0
SELECT auction, bidder, price, dateTime, extra FROM bid

-- q1
SELECT auction, bidder, (price * 908)::DECIMAL(20, 3) / 1000 AS price, dateTime, extra FROM bid

-- q2
SELECT auction, price FROM bid WHERE auction % 123 = 0

-- q3
SELECT name, city, state, a.id FROM auction a, person p WHERE a.seller = p.id AND category = 10 AND state IN ('OR', 'ID', 'CA')

-- q4
SELECT category, avg(final) AS avg_final FROM (SELECT id, category, max(price) AS final FROM valid GROUP BY ALL) GROUP BY ALL

-- q5
SELECT auction, num
FROM (
  SELECT auction, start, count(*) AS num, max(count(*)) OVER (PARTITION BY start) AS most
  FROM (
    SELECT auction, time_bucket(INTERVAL 2 SECONDS, dateTime) - to_seconds(2 * ago) AS start
    FROM bid, range(5) AS earlier(ago)
  )
  GROUP BY auction, start
)
WHERE num = most

-- q6
SELECT seller, id, avg(price) OVER (PARTITION BY seller ORDER BY won ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS avg_price
FROM (SELECT seller, id, max(price) AS price, arg_max(bid_dateTime, price) AS won FROM valid GROUP BY ALL)

-- q7
WITH period AS (SELECT time_bucket(INTERVAL 10 SECONDS, dateTime) AS start, max(price) AS highest FROM bid GROUP BY ALL)
SELECT auction, price, bidder, dateTime, extra
FROM bid, period
WHERE price = highest AND dateTime BETWEEN start AND start + INTERVAL 10 SECONDS

-- q8
SELECT DISTINCT p.id, name, time_bucket(INTERVAL 10 SECONDS, p.dateTime) AS starttime
FROM person p, auction a
WHERE p.id = seller AND time_bucket(INTERVAL 10 SECONDS, p.dateTime) = time_bucket(INTERVAL 10 SECONDS, a.dateTime)

-- q9
SELECT DISTINCT ON (id) id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra,
  id AS auction, bidder, price, bid_dateTime, bid_extra
FROM valid
ORDER BY id, price DESC, bid_dateTime

-- q10
SELECT auction, bidder, price, dateTime, extra, strftime(dateTime, '%Y-%m-%d') AS dt, strftime(dateTime, '%H:%M') AS hm FROM bid

-- q11
WITH begun AS (
  SELECT *, coalesce(dateTime > lag(dateTime) OVER (PARTITION BY bidder ORDER BY dateTime) + INTERVAL 10 SECONDS, true) AS begins FROM bid
), numbered AS (
  SELECT *, sum(begins::INT) OVER (PARTITION BY bidder ORDER BY dateTime) AS session FROM begun
)
SELECT bidder, count(*) AS bid_count, min(dateTime) AS starttime, max(dateTime) + INTERVAL 10 SECONDS AS endtime
FROM numbered
GROUP BY bidder, session

-- q12
SELECT bidder, count(*) AS bid_count, time_bucket(INTERVAL 10 SECONDS, dateTime) AS starttime,
  time_bucket(INTERVAL 10 SECONDS, dateTime) + INTERVAL 10 SECONDS AS endtime
FROM bid
GROUP BY ALL

-- q13
SELECT auction, bidder, price, dateTime, 'value ' || auction % 10000 AS value FROM bid WHERE auction % 10000 < 2000

-- q14
SELECT auction, bidder, (price * 908)::DECIMAL(20, 3) / 1000 AS price, 'nightTime' AS bidTimeType, dateTime, extra,
  len(list_filter(string_split(extra, ''), lambda letter: letter = 'c')) AS c_counts
FROM bid
WHERE price * 908 > 1000000000 AND price * 908 < 50000000000

-- q15
SELECT day, count(*) AS total_bids, sum(rank1::INT) AS rank1_bids, sum(rank2::INT) AS rank2_bids, sum(rank3::INT) AS rank3_bids,
  count(DISTINCT bidder) AS total_bidders, count(DISTINCT if(rank1, bidder, NULL)) AS rank1_bidders,
  count(DISTINCT if(rank2, bidder, NULL)) AS rank2_bidders, count(DISTINCT if(rank3, bidder, NULL)) AS rank3_bidders,
  count(DISTINCT auction) AS total_auctions, count(DISTINCT if(rank1, auction, NULL)) AS rank1_auctions,
  count(DISTINCT if(rank2, auction, NULL)) AS rank2_auctions, count(DISTINCT if(rank3, auction, NULL)) AS rank3_auctions
FROM ranked
GROUP BY day

-- q16
SELECT channel, day, max(strftime(dateTime, '%H:%M')) AS minute,
  count(*) AS total_bids, sum(rank1::INT) AS rank1_bids, sum(rank2::INT) AS rank2_bids, sum(rank3::INT) AS rank3_bids,
  count(DISTINCT bidder) AS total_bidders, count(DISTINCT if(rank1, bidder, NULL)) AS rank1_bidders,
  count(DISTINCT if(rank2, bidder, NULL)) AS rank2_bidders, count(DISTINCT if(rank3, bidder, NULL)) AS rank3_bidders,
  count(DISTINCT auction) AS total_auctions, count(DISTINCT if(rank1, auction, NULL)) AS rank1_auctions,
  count(DISTINCT if(rank2, auction, NULL)) AS rank2_auctions, count(DISTINCT if(rank3, auction, NULL)) AS rank3_auctions
FROM ranked
GROUP BY channel, day

-- q17
SELECT auction, day, count(*) AS total_bids, sum(rank1::INT) AS rank1_bids, sum(rank2::INT) AS rank2_bids, sum(rank3::INT) AS rank3_bids,
  min(price) AS min_price, max(price) AS max_price, sum(price) / count(*) AS avg_price, sum(price) AS sum_price
FROM ranked
GROUP BY auction, day

-- q18
SELECT DISTINCT ON (auction, bidder) * FROM bid ORDER BY auction, bidder, dateTime DESC

-- q19
SELECT * FROM (
  SELECT b.*, 1 + (  -- of equal bids the earlier one is ranked higher
    SELECT count(*) FROM bid o WHERE o.auction = b.auction AND (o.price > b.price OR o.price = b.price AND o.dateTime < b.dateTime)
  ) AS rank_number
  FROM bid b
)
WHERE rank_number <= 10

-- q20
SELECT auction, bidder, price, channel, url, b.dateTime AS bid_dateTime, b.extra AS bid_extra, itemName, description, initialBid,
  reserve, a.dateTime AS auction_dateTime, expires, seller, category, a.extra AS auction_extra
FROM bid b, auction a
WHERE auction = id AND category = 10

-- q21
SELECT *
FROM (
  SELECT auction, bidder, price, channel,
    coalesce((list_position(['Apple', 'Google', 'Facebook', 'Baidu'], channel) - 1)::VARCHAR,
      nullif(split_part(url, '&channel_id=', 2), '')) AS channel_id
  FROM bid
)
WHERE channel_id IS NOT NULL

-- q22
SELECT auction, bidder, price, channel, parts[4] AS dir1, parts[5] AS dir2, parts[6] AS dir3
FROM (SELECT *, string_split(url, '/') AS parts FROM bid)
