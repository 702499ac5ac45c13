import java.lang.management.ManagementFactory;
import java.util.Map;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.transforms.Filter;
import org.apache.kafka.connect.transforms.InsertField;
import org.apache.kafka.connect.transforms.MaskField;
import org.apache.kafka.connect.transforms.ReplaceField;
import org.apache.kafka.connect.transforms.predicates.HasHeaderKey;

/**
 * What four transforms of Kafka Connect cost a record of twenty fields, called one after the other as a worker calls
 * them, on Structs: for `make bench-transform`. Prints nanoseconds of CPU time a record, one line a round.
 */
public class StructSmts {
    public static void main(String[] args) {
        int records = Integer.parseInt(args[0]);
        int rounds = Integer.parseInt(args[1]);
        SchemaBuilder fields = SchemaBuilder.struct().name("order");
        String[] texts = {"order_id", "name", "email", "phone", "street", "city", "zip", "country", "currency", "status",
            "channel", "ip", "user_agent", "session", "card"};
        String[] numbers = {"customer_id", "amount_cents", "tax_cents", "created_at"};
        for (String text : texts) fields.field(text, Schema.OPTIONAL_STRING_SCHEMA);
        for (String number : numbers) fields.field(number, Schema.INT64_SCHEMA);
        Schema schema = fields.field("gift", Schema.BOOLEAN_SCHEMA).build();
        SinkRecord[] orders = new SinkRecord[records];
        for (int n = 0; n < records; n++) {
            Struct order = new Struct(schema);
            for (String text : texts) order.put(text, text + " of order " + n);
            for (String number : numbers) order.put(number, (long) n * 7);
            order.put("gift", n % 11 == 0);
            orders[n] = new SinkRecord("orders", 0, null, null, schema, order, n, 1793491200000L + n,
                TimestampType.CREATE_TIME);
            if (n % 5 == 0) orders[n].headers().addString("test", "true");
        }
        HasHeaderKey<SinkRecord> isTest = new HasHeaderKey<>();
        isTest.configure(Map.of("name", "test"));
        Filter<SinkRecord> filter = new Filter<>();
        filter.configure(Map.of());
        ReplaceField<SinkRecord> replace = new ReplaceField.Value<>();
        replace.configure(Map.of("exclude", "ip,user_agent,session",
            "renames", "order_id:id,amount_cents:amount"));
        MaskField<SinkRecord> mask = new MaskField.Value<>();
        mask.configure(Map.of("fields", "card"));
        InsertField<SinkRecord> insert = new InsertField.Value<>();
        insert.configure(Map.of("timestamp.field", "received_at"));
        var thread = ManagementFactory.getThreadMXBean();
        long kept = 0;
        for (int round = 0; round < rounds; round++) {
            long before = thread.getCurrentThreadCpuTime();
            for (SinkRecord order : orders) {
                SinkRecord record = isTest.test(order) ? filter.apply(order) : order;
                if (record == null) continue;
                record = insert.apply(mask.apply(replace.apply(record)));
                kept += ((Struct) record.value()).schema().fields().size();
            }
            System.out.println((thread.getCurrentThreadCpuTime() - before) / records);
        }
        if (kept != (long) rounds * (records - (records + 4) / 5) * 18) throw new IllegalStateException("kept " + kept);
    }
}
