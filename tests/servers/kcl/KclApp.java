import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A KCL application (2.x and 3.x) that says on stdout, a line each, what happens: what it began after, each record, each checkpoint.
 *
 * <p>Arguments: application, stream, worker, URL of Kinesis, URL of DynamoDB, failover time in ms, how it checkpoints (`batch`: after
 * every batch; a number n: after the first n user records that the worker reads, then no more). SIGTERM is a graceful shutdown.
 */
public final class KclApp {
    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static final class Processor implements ShardRecordProcessor {
        private final long atMost;
        private long read;
        private String shard;

        Processor(String checkpoints) {
            atMost = checkpoints.equals("batch") ? Long.MAX_VALUE : Long.parseLong(checkpoints);
        }

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
            say("BEGIN " + shard + " " + input.extendedSequenceNumber().sequenceNumber() + ":" + input.extendedSequenceNumber().subSequenceNumber());
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            for (KinesisClientRecord record : input.records()) {
                byte[] data = new byte[record.data().remaining()];
                record.data().get(data);
                say("RECORD " + shard + " " + record.sequenceNumber() + ":" + record.subSequenceNumber() + " " + new String(data, StandardCharsets.UTF_8));
                if (++read == atMost) {
                    checkpoint(input.checkpointer(), record);
                }
            }
            if (!input.records().isEmpty() && atMost == Long.MAX_VALUE) {
                checkpoint(input.checkpointer(), null);
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            say("LOST " + shard);
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            checkpoint(input.checkpointer(), null);
            say("ENDED " + shard);
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            if (atMost == Long.MAX_VALUE) {
                checkpoint(input.checkpointer(), null);
            }
            say("ASKED " + shard);
        }

        private void checkpoint(RecordProcessorCheckpointer checkpointer, KinesisClientRecord at) {
            try {
                if (at == null) {
                    checkpointer.checkpoint();
                } else {
                    checkpointer.checkpoint(at.sequenceNumber(), at.subSequenceNumber());
                }
                say("CHECKPOINT " + shard);
            } catch (Exception error) {
                say("REFUSED " + shard + " " + error);
            }
        }
    }

    /** Sets what only some versions have. */
    private static void set(Object config, String name, Class<?> type, Object value) throws Exception {
        try {
            config.getClass().getMethod(name, type).invoke(config, value);
        } catch (NoSuchMethodException absent) {
            say("ABSENT " + name);
        }
    }

    public static void main(String[] args) throws Exception {
        String application = args[0], stream = args[1], worker = args[2], checkpoints = args[6];
        long failoverMs = Long.parseLong(args[5]);
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        var http = NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1);
        var kinesis = KinesisAsyncClient.builder().region(Region.US_EAST_1).credentialsProvider(credentials)
                .endpointOverride(URI.create(args[3])).httpClientBuilder(http).build();
        var dynamodb = DynamoDbAsyncClient.builder().region(Region.US_EAST_1).credentialsProvider(credentials)
                .endpointOverride(URI.create(args[4])).build();
        var cloudwatch = CloudWatchAsyncClient.builder().region(Region.US_EAST_1).credentialsProvider(credentials)
                .endpointOverride(URI.create(args[4])).build();
        var start = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        var configs = new ConfigsBuilder(new SingleStreamTracker(stream, start), application, kinesis, dynamodb, cloudwatch, worker,
                () -> new Processor(checkpoints));
        var leases = configs.leaseManagementConfig().failoverTimeMillis(failoverMs).shardSyncIntervalMillis(1000)
                .leasesRecoveryAuditorExecutionFrequencyMillis(5000);
        set(leases, "leaseAssignmentIntervalMillis", Long.class, failoverMs);
        set(leases, "dynamoDbLockBasedLeaderLeaseDurationInMillis", long.class, 6000L);
        set(leases, "dynamoDbLockBasedLeaderHeartbeatPeriodInMillis", long.class, 1500L);
        var polling = new PollingConfig(stream, kinesis).idleTimeBetweenReadsInMillis(250);
        var scheduler = new Scheduler(
                configs.checkpointConfig(),
                configs.coordinatorConfig().parentShardPollIntervalMillis(500).shardConsumerDispatchPollIntervalMillis(100),
                leases,
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()).metricsLevel(MetricsLevel.NONE),
                configs.processorConfig(),
                configs.retrievalConfig().retrievalSpecificConfig(polling));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                scheduler.startGracefulShutdown().get(15, TimeUnit.SECONDS);
                say("STOPPED");
            } catch (Exception error) {
                say("NOT STOPPED " + error);
            }
        }));
        say("STARTED");
        scheduler.run();
    }
}
