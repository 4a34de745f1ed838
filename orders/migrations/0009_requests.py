from datetime import timedelta

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import Q


def keep_sent_cancels(apps, schema_editor):
    """Write the cancels that were sent before as requests: acknowledged if the broker numbered them, else unknown."""
    orders, requests = apps.get_model("orders", "TradeOrder"), apps.get_model("orders", "BrokerRequest")
    events = apps.get_model("orders", "OrderEvent")
    open_states = ["PENDING", "PARTIAL"]
    asked = orders.objects.filter(cancel_sent_at__isnull=False)
    for order in asked.filter(Q(status__in=open_states) | Q(chase_at__isnull=False)):
        told = events.objects.filter(order=order, at__gte=order.cancel_sent_at, kind__startswith="CANCEL_")
        taken = told.filter(kind="CANCEL_TAKEN").order_by("-id").first()
        by = "CHASE" if order.chase_at else "OPERATOR"
        requests.objects.create(
            order=order,
            kind="CANCEL",
            state="ACKNOWLEDGED" if taken else "UNKNOWN",
            state_at=taken.at if taken else order.cancel_sent_at + timedelta(seconds=30),
            requested_at=order.cancel_sent_at,
            requested_by=by,
            qty=order.qty - order.filled_qty,
            sent_at=order.cancel_sent_at,
            branch=order.branch if taken else "",
            order_no=taken.detail[:10] if taken else "",
        )
        if order.status in open_states:
            order.cancel_wanted_at = order.cancel_due_at = order.cancel_sent_at
            order.cancel_wanted_by = by
        order.look_wanted = True
        order.save(update_fields=["cancel_wanted_at", "cancel_due_at", "cancel_wanted_by", "look_wanted"])


def keep_bands(apps, schema_editor):
    """Bound the chases that go on as they were bounded until now: by 3 % of the price at arrival."""
    chased = apps.get_model("orders", "TradeOrder").objects.filter(chase_at__isnull=False)
    chased.filter(order_type="BUY").update(arrival_percent=settings.CHASE_ARRIVAL_PERCENT_BUY)
    chased.update(band_percent=settings.MAX_OFFSET_PERCENT)


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0008_intents'),
    ]

    operations = [
        migrations.CreateModel(
            name='BrokerRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('NEW', 'new order'), ('AMEND', 'amend'), ('CANCEL', 'cancel')], max_length=6, verbose_name='kind')),
                ('state', models.CharField(choices=[('REQUESTED', 'requested'), ('SENT', 'sent'), ('ACKNOWLEDGED', 'acknowledged'), ('CONFIRMED', 'confirmed by the list'), ('REJECTED', 'rejected'), ('UNKNOWN', 'outcome unknown'), ('NOT_SENT', 'not sent'), ('LAPSED', 'lapsed')], default='REQUESTED', max_length=12, verbose_name='state')),
                ('state_at', models.DateTimeField(verbose_name='state since')),
                ('requested_at', models.DateTimeField(verbose_name='requested at')),
                ('requested_by', models.CharField(choices=[('CALLER', 'caller'), ('CHASE', 'chase'), ('STOP', 'stop'), ('OPERATOR', 'operator'), ('CANCEL_ALL', 'cancel all')], max_length=10, verbose_name='requested by')),
                ('who', models.CharField(blank=True, db_default='', default='', max_length=150, verbose_name='by whom')),
                ('qty', models.PositiveBigIntegerField(verbose_name='quantity')),
                ('is_whole', models.BooleanField(default=True, verbose_name='all that is open')),
                ('price', models.PositiveBigIntegerField(default=0, verbose_name='price')),
                ('sent_at', models.DateTimeField(blank=True, null=True, verbose_name='sent at')),
                ('branch', models.CharField(blank=True, db_default='', default='', max_length=5, verbose_name='branch')),
                ('order_no', models.CharField(blank=True, db_default='', default='', max_length=10, verbose_name='order number')),
                ('confirmed_at', models.DateTimeField(blank=True, null=True, verbose_name='confirmed at')),
                ('confirmed_qty', models.PositiveBigIntegerField(db_default=0, default=0, verbose_name='confirmed quantity')),
                ('code', models.CharField(blank=True, db_default='', default='', max_length=12, verbose_name='code')),
                ('message', models.CharField(blank=True, db_default='', default='', max_length=200, verbose_name='message')),
            ],
            options={
                'verbose_name': 'request to the broker',
                'verbose_name_plural': 'requests to the broker',
                'db_table': 'broker_requests',
                'ordering': ['id'],
            },
        ),
        migrations.RemoveConstraint(
            model_name='tradeorder',
            name='one_order_per_retry',
        ),
        migrations.RemoveConstraint(
            model_name='tradeorder',
            name='a_retry_has_a_root',
        ),
        migrations.RemoveConstraint(
            model_name='tradeorder',
            name='one_order_per_number_and_day',
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='arrival_percent',
            field=models.DecimalField(decimal_places=2, default=0, help_text='how far from the price at arrival a chase may go; 0: no bound', max_digits=5, verbose_name='band from arrival (%)'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='band_percent',
            field=models.DecimalField(decimal_places=2, default=0, help_text='how far from the current price it may be priced', max_digits=5, verbose_name='price band (%)'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='cancel_due_at',
            field=models.DateTimeField(blank=True, null=True, verbose_name='cancel to be sent again at'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='cancel_wanted_at',
            field=models.DateTimeField(blank=True, null=True, verbose_name='cancel requested at'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='cancel_wanted_by',
            field=models.CharField(blank=True, choices=[('CALLER', 'caller'), ('CHASE', 'chase'), ('STOP', 'stop'), ('OPERATOR', 'operator'), ('CANCEL_ALL', 'cancel all')], db_default='', default='', max_length=10, verbose_name='cancel requested by'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='chase_by',
            field=models.CharField(choices=[('CANCEL', 'CANCEL'), ('AMEND', 'AMEND')], default='CANCEL', max_length=6, verbose_name='chased by'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='chase_step',
            field=models.CharField(choices=[('CHECK', 'check'), ('CANCEL', 'cancel'), ('AMEND', 'amend'), ('CONFIRM', 'confirm'), ('REORDER', 'reorder')], db_default='CHECK', default='CHECK', max_length=7, verbose_name='chase step'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='decided_by',
            field=models.CharField(blank=True, db_default='', default='', help_text='who settled its unknown outcome: that is final', max_length=150, verbose_name='decided by'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='end_cause',
            field=models.CharField(blank=True, choices=[('OWN_CANCEL', 'cancelled by AEGIS'), ('OWN_AMEND', 'amended by AEGIS'), ('EXTERNAL_CANCEL', 'cancelled elsewhere'), ('EXTERNAL_AMEND', 'amended elsewhere'), ('SESSION_END', 'the session ended'), ('IMMEDIATE_REMAINDER', 'an immediate order: its rest was cancelled'), ('REMAINDER_REJECTED', 'the exchange rejected the rest'), ('UNEXPLAINED', 'the list does not say by what')], db_default='', default='', max_length=20, verbose_name='ended by'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='lookup_at',
            field=models.DateTimeField(blank=True, null=True, verbose_name='next look-up at'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='missing_since',
            field=models.DateTimeField(blank=True, help_text='open here, and in no complete list', null=True, verbose_name='missing from the list since'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='quoted_at',
            field=models.DateTimeField(blank=True, help_text='when the price that it was judged by was asked for', null=True, verbose_name='quoted at'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='replaces',
            field=models.ForeignKey(blank=True, help_text='the order that an amend moved to this one, wholly or in part', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='replaced_by', to='orders.tradeorder', verbose_name='amended order'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='strategy_id',
            field=models.CharField(blank=True, db_index=True, help_text="who wants it: the caller's own text", max_length=64, verbose_name='strategy'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='tick_offset',
            field=models.SmallIntegerField(blank=True, help_text='ticks from what the pricing style counts from', null=True, verbose_name='tick offset'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='unlisted_since',
            field=models.DateTimeField(blank=True, help_text='a notice told of them, the list does not', null=True, verbose_name='fills not in the list since'),
        ),
        migrations.AddField(
            model_name='tradeorder',
            name='withdrawn_qty',
            field=models.PositiveBigIntegerField(db_default=0, default=0, help_text='what a partial cancel or amend took from an open order', verbose_name='withdrawn quantity'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='absent_looks',
            field=models.PositiveSmallIntegerField(db_default=0, default=0, verbose_name='times not found'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='branch',
            field=models.CharField(blank=True, db_default='', default='', max_length=5, verbose_name='branch'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='chase_note',
            field=models.CharField(blank=True, db_default='', default='', max_length=200, verbose_name='chase ended because'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='filled_amount',
            field=models.PositiveBigIntegerField(db_default=0, default=0, verbose_name='filled amount'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='filled_qty',
            field=models.PositiveBigIntegerField(db_default=0, default=0, verbose_name='filled quantity'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='look_wanted',
            field=models.BooleanField(db_default=False, default=False, verbose_name='to be confirmed'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='never_arrived',
            field=models.BooleanField(db_default=False, default=False, verbose_name='never reached the broker'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='refusal',
            field=models.CharField(blank=True, db_default='', default='', max_length=200, verbose_name='refusal'),
        ),
        migrations.AlterField(
            model_name='tradeorder',
            name='strategy',
            field=models.CharField(blank=True, max_length=20, verbose_name='pricing style'),
        ),
        migrations.AddIndex(
            model_name='tradeorder',
            index=models.Index(condition=models.Q(('cancel_due_at__isnull', False)), fields=['cancel_due_at'], name='orders_cancel_due'),
        ),
        migrations.AddConstraint(
            model_name='tradeorder',
            constraint=models.UniqueConstraint(fields=('order_date', 'branch', 'order_no', 'stock_code', 'order_type'), name='one_order_per_number_and_day'),
        ),
        migrations.AddConstraint(
            model_name='tradeorder',
            constraint=models.UniqueConstraint(condition=models.Q(('attempt__gt', 0)), fields=('root', 'attempt'), name='one_order_per_retry'),
        ),
        migrations.AddConstraint(
            model_name='tradeorder',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('attempt', 0), ('root__isnull', True)), models.Q(('attempt__gt', 0), ('root__isnull', False)), models.Q(('attempt', 0), ('origin', 'EXTERNAL'), ('root__isnull', False)), _connector='OR'), name='a_retry_has_a_root'),
        ),
        migrations.AddField(
            model_name='brokerrequest',
            name='makes',
            field=models.OneToOneField(blank=True, help_text='the order that an amend leads to', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='made_by', to='orders.tradeorder', verbose_name='new order'),
        ),
        migrations.AddField(
            model_name='brokerrequest',
            name='order',
            field=models.ForeignKey(blank=True, help_text="empty: an open order of the broker's that no row of ours is", null=True, on_delete=django.db.models.deletion.PROTECT, related_name='requests', to='orders.tradeorder', verbose_name='order'),
        ),
        migrations.AddIndex(
            model_name='brokerrequest',
            index=models.Index(fields=['requested_at'], name='requests_by_time'),
        ),
        migrations.AddIndex(
            model_name='brokerrequest',
            index=models.Index(condition=models.Q(('state__in', ['ACKNOWLEDGED', 'REQUESTED', 'SENT', 'UNKNOWN']), models.Q(('kind', 'NEW'), _negated=True)), fields=['order'], name='requests_live'),
        ),
        migrations.RunPython(keep_sent_cancels, migrations.RunPython.noop),
        migrations.RunPython(keep_bands, migrations.RunPython.noop),
        # the indexes come last, and PostgreSQL makes none on rows whose foreign keys are still to be checked
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
    ]
