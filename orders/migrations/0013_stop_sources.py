from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0012_stop_sales'),
    ]

    operations = [
        migrations.AddField(
            model_name='stoprule',
            name='base_price',
            field=models.PositiveBigIntegerField(default=0, verbose_name='base price of that day'),
        ),
        migrations.AddField(
            model_name='stoprule',
            name='based_on',
            field=models.DateField(blank=True, null=True, verbose_name='newest trading day whose base price is counted in'),
        ),
        migrations.AddField(
            model_name='stoprule',
            name='basis',
            field=models.DecimalField(decimal_places=12, default=1, help_text='other than 1 from an ex-rights day until the holding shows the new shares', max_digits=24, verbose_name="today's prices by those of the average price"),
        ),
        migrations.AddField(
            model_name='stoprule',
            name='counts_from',
            field=models.DateTimeField(blank=True, help_text='when it was armed or last changed', null=True, verbose_name='trades count from'),
        ),
        migrations.AddField(
            model_name='stoprule',
            name='heard_totals',
            field=models.JSONField(blank=True, default=dict, help_text='by venue, of one day', verbose_name='running totals of shares that its feeds told'),
        ),
        migrations.AddField(
            model_name='stoprule',
            name='looks',
            field=models.JSONField(blank=True, default=dict, verbose_name='what polled prices showed'),
        ),
        migrations.AddField(
            model_name='stoprule',
            name='moved_by',
            field=models.DecimalField(decimal_places=12, default=1, max_digits=24, verbose_name='ratio by which a change of the holding moved it since then'),
        ),
        migrations.AddField(
            model_name='stoprule',
            name='sources',
            field=models.CharField(blank=True, choices=[('', 'as set for all stops'), ('KRX', 'KRX alone'), ('NXT', 'NXT alone'), ('KRX,NXT', 'both')], default='', help_text='empty: as AEGIS_STOP_SOURCES says', max_length=7, verbose_name='venues that may trigger it'),
        ),
    ]
