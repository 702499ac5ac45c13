"""Orders as rows of protobuf, as Google's samples for its Python library write them: a message of a generated class, serialized.

    protobuf_rows.py ORDERS.jsonl

Prints the microseconds of CPU time a row, the best of three runs, and the bytes of all rows, as JSON.
"""

import json
import sys
import time

from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
TYPES = {"s": FIELD.TYPE_STRING, "i": FIELD.TYPE_INT64, "b": FIELD.TYPE_BOOL, "m": FIELD.TYPE_MESSAGE}
MESSAGES = {
    "Customer": "name:s email:s phone:s",
    "Address": "street:s city:s zip:s country:s",
    "Item": "sku:s quantity:i price_cents:i",
    "Order": "order_id:s customer_id:i customer:m:Customer shipping:m:Address currency:s amount_cents:i tax_cents:i status:s "
    "channel:s created_at:i ip:s user_agent:s session:s card:s gift:b items:m:Item note:s",
}


def order_class():
    file = descriptor_pb2.FileDescriptorProto(name="orders.proto", package="orders", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields.split(), 1):
            name, kind, *of = field.split(":")
            added = message.field.add(name=name, number=number, type=TYPES[kind], label=FIELD.LABEL_OPTIONAL)
            if of:
                added.type_name = f".orders.{of[0]}"
            if name == "items":
                added.label = FIELD.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("orders.Order"))


with open(sys.argv[1], encoding="utf-8") as lines:
    orders = [json.loads(line) for line in lines]
Order = order_class()
best = float("inf")
for _ in range(3):
    size = 0
    start = time.process_time()
    for first in range(0, len(orders), 1000):
        rows = types.ProtoRows()
        serialized = [Order(**order).SerializeToString() for order in orders[first : first + 1000]]
        rows.serialized_rows = serialized
        size += sum(map(len, serialized))
    best = min(best, time.process_time() - start)
print(json.dumps({"micros": best * 1e6 / len(orders), "bytes": size}))
